"""What a family of targets is to these tests: how to build a tiny one, and prompts for it.

Knows no family.
"""

from collections.abc import Callable
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from transformers import PreTrainedModel

from tests.generation import tiny

from .parts import VIDEO_TOKEN, VISION_END, VISION_START, Pixels, squares


@dataclass(frozen=True)
class Family:
    """One family of targets.

    Args:
        build: a model with random weights, of the class that transformers loads for the family.
        pixels: inputs of two pictures; None for text alone.
        token_types: name of the input that marks visual tokens, if the family has one.
        tokens: visual tokens of each picture, where the model has no `get_image_features` that says so.
        note: what a reader of the table should know.
    """

    build: Callable[[], PreTrainedModel]
    pixels: Pixels | None = squares
    token_types: str | None = None
    tokens: int | None = None
    note: str = ""

    def model(self) -> PreTrainedModel:
        """Built and in `eval` mode, the same every time."""
        torch.manual_seed(0)
        return tiny.finish(self.build())

    def prompts(self, model: PreTrainedModel) -> list[dict[str, Any]]:
        """One of text, and one with two pictures that have text before, between and after them."""
        text = tiny.llava_prompt(0, images=0, length=8)["input_ids"][0].tolist()
        if self.pixels is None:
            return [self.inputs(text)]
        pixels = self.pixels(torch.Generator().manual_seed(0))
        ids = [1, 5, 6, 7]
        for count in self.counts(model, pixels):
            ids += [VISION_START, *[tiny.IMAGE_TOKEN] * count, VISION_END, 8, 9]
        return [self.inputs(text), self.inputs(ids) | pixels]

    @torch.no_grad()
    def counts(self, model: PreTrainedModel, pixels: dict[str, Any]) -> list[int]:
        """Visual tokens of each row of pictures."""
        if self.tokens is not None:
            return [self.tokens] * 2
        encode = model.base_model.get_image_features
        known = signature(encode).parameters
        encoded = encode(**{name: value for name, value in pixels.items() if name in known}, return_dict=True)
        return [picture.shape[0] for picture in encoded.pooler_output]

    def inputs(self, ids: list[int]) -> dict[str, Any]:
        """A prompt of these ids, pixels left out."""
        row = torch.tensor([ids])
        inputs = {"input_ids": row, "attention_mask": torch.ones_like(row)}
        if self.token_types:
            inputs[self.token_types] = (row == tiny.IMAGE_TOKEN).long() + 2 * (row == VIDEO_TOKEN).long()
        return inputs


def picture_spans(ids: torch.Tensor) -> list[tuple[int, int]]:
    """Where the pictures of a prompt `(1, L)` stand, from the marks around them."""
    starts, ends = ((ids[0] == mark).nonzero().flatten().tolist() for mark in (VISION_START, VISION_END))
    return [(start + 1, end) for start, end in zip(starts, ends, strict=True)]
