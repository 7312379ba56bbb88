"""A conversation as `generate` takes it: rendered anew by the template each turn, then without what is cached already.

Knows tensors and how processors lay out pixels; keeps nothing.
"""

import hashlib
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from transformers import PreTrainedModel

from hf_mmspec.data import Conversation, model_inputs, open_picture

Message = Mapping[str, Any]


@dataclass(frozen=True)
class Prompt:
    """A whole conversation that waits for an answer.

    Args:
        inputs: all that the processor gives for it, on the model's device: `input_ids (1, L)`, pixels of all pictures.
        positions: `(1, L)`, or `(4, 1, L)` for M-RoPE; None where the model takes none.
        digests: one for each picture, equal where the pixels are.
    """

    inputs: Mapping[str, torch.Tensor]
    positions: torch.Tensor | None
    digests: list[str]

    @property
    def ids(self) -> list[int]:
        return self.inputs["input_ids"][0].tolist()

    def request(self, known: int = 0) -> dict[str, Any] | None:
        """Arguments of `generate` where the cache holds the first `known` pictures; None where the pixels of the
        others cannot be told apart from theirs."""
        arguments = {name: value for name, value in self.inputs.items() if self._is_of_tokens(value)}
        if self.positions is not None:
            # Of the whole conversation: M-RoPE counts the pictures before, whose sizes `generate` would not be given.
            arguments["position_ids"] = self.positions
        pixels = {name: value for name, value in self.inputs.items() if name not in arguments}
        if known < len(self.digests):
            rest = without_first_pictures(pixels, known, len(self.digests))
            if rest is None:
                return None
            arguments |= rest
        return arguments

    def _is_of_tokens(self, value: torch.Tensor) -> bool:
        return value.shape == self.inputs["input_ids"].shape and not value.is_floating_point()


def render(model: PreTrainedModel, processor: Any, messages: Sequence[Message]) -> Prompt:
    """Messages, pictures in their parts, as a prompt for `model`.

    Raises:
        PictureError: a picture cannot be opened.
    """
    parts = [part for message in messages for part in message["content"] if part["type"] == "image"]
    pictures = [open_picture(part["image"]) for part in parts]
    inputs = dict(model_inputs(processor, [Conversation(messages, pictures)]).to(model.device, model.dtype))
    return Prompt(inputs, _positions(model, inputs), [digest(picture) for picture in pictures])


def digest(picture: Image.Image) -> str:
    """The same for the same pixels."""
    return hashlib.blake2b(picture.tobytes(), key=repr(picture.size).encode(), digest_size=16).hexdigest()


def without_first_pictures(
    pixels: Mapping[str, torch.Tensor], known: int, total: int
) -> dict[str, torch.Tensor] | None:
    """The tensors of `total` pictures without those of the first `known`: one entry for each picture, or patches of
    all pictures in one row with `image_grid_thw` (Qwen-VL). None for other layouts."""
    if known == 0:
        return dict(pixels)
    patches = pixels.get("pixel_values")
    grid = pixels.get("image_grid_thw")
    if grid is not None and patches is not None and len(grid) == total:
        counts = grid.prod(-1)
        if len(patches) == int(counts.sum()):
            cut = {"pixel_values": patches[int(counts[:known].sum()) :], "image_grid_thw": grid[known:]}
            rest = {name: value for name, value in pixels.items() if name not in cut}
            return cut | rest if all(len(value) == total for value in rest.values()) else None
    if all(len(value) == total for value in pixels.values()):
        return {name: value[known:] for name, value in pixels.items()}
    return None


def _positions(model: PreTrainedModel, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor | None:
    """Positions of all tokens, as `generate` finds them for a prompt without a cache."""
    if "position_ids" not in inspect.signature(model.forward).parameters:
        return None
    rest = {name: value for name, value in inputs.items() if name != "input_ids"}
    return model._prepare_position_ids_for_generation(inputs["input_ids"], rest)
