"""Prompts of any family with any number of pictures, and batches of them, padded on the left.

A family's own `pixels` give two pictures at a time; here they are taken apart and put together again.
"""

from typing import Any

import torch
from transformers import PreTrainedModel

from tests.generation import tiny
from tests.generation.batches import PER_TOKEN, padded_to

from .family import Family
from .parts import VISION_END, VISION_START, row_of_squares


def prompt(family: Family, counts: list[int], seed: int, pictures: int, length: int) -> dict[str, Any]:
    """One prompt with its pictures as single pieces, for `batch`.

    Args:
        counts: visual tokens of the two pictures that the family's `pixels` give.
        seed: of text and pictures.
        pictures: how many; each has text behind it.
        length: tokens of text before the first picture.
    """
    generator = torch.Generator().manual_seed(seed)
    ids, pieces = [1, *_text(generator, length)], []
    for number in range(pictures):
        which = (seed + number) % 2
        pieces.append(pieces_of(family.pixels(generator), family)[which])
        ids += [VISION_START, *[tiny.IMAGE_TOKEN] * counts[which], VISION_END, *_text(generator, 1 + number)]
    return family.inputs(ids) | {"pieces": pieces}


def batch(family: Family, prompts: list[dict[str, Any]]) -> dict[str, Any]:
    """What `generate` takes for these prompts together."""
    longest = max(each["input_ids"].shape[1] for each in prompts)
    names = [name for name in (*PER_TOKEN, "token_type_ids") if name in prompts[0]]
    inputs = {name: torch.cat([padded_to(each[name], longest) for each in prompts]) for name in names}
    return inputs | _joined(family, [each["pieces"] for each in prompts])


def visual_tokens(family: Family, model: PreTrainedModel) -> list[int]:
    """Of each of the two pictures that the family's `pixels` give."""
    if family.tokens is not None:
        return [family.tokens] * 2
    pieces = pieces_of(family.pixels(torch.Generator().manual_seed(0)), family)
    return [sum(family.counts(model, _joined(family, [[piece]]))) for piece in pieces]


def pieces_of(pixels: dict[str, Any], family: Family) -> list[dict[str, Any]]:
    """The inputs of several pictures, picture by picture."""
    if family.pixels is row_of_squares:
        return [{"pixel_values": picture} for picture in pixels["pixel_values"][0]]
    grids = pixels.get("image_grid_thw")
    count = len(next(iter(pixels.values()))) if grids is None else len(grids)
    sizes = {name: [1] * count for name in pixels}
    if grids is not None:
        sizes["pixel_values"] = grids.prod(-1).tolist()
    parts = {name: value.split(sizes[name]) for name, value in pixels.items()}
    return [{name: values[index] for name, values in parts.items()} for index in range(count)]


def _joined(family: Family, rows: list[list[dict[str, Any]]]) -> dict[str, Any]:
    flat = [piece for row in rows for piece in row]
    if not flat:
        return {}
    if family.pixels is not row_of_squares:
        return {name: torch.cat([piece[name] for piece in flat]) for name in flat[0]}
    # a row of the batch holds its pictures, and black ones after them, which these models leave out
    most, black = max(map(len, rows)), torch.zeros_like(flat[0]["pixel_values"])
    return {
        "pixel_values": torch.stack(
            [torch.stack([*[piece["pixel_values"] for piece in row], *[black] * (most - len(row))]) for row in rows]
        )
    }


def _text(generator: torch.Generator, count: int) -> list[int]:
    return torch.randint(3, 110, (count,), generator=generator).tolist()
