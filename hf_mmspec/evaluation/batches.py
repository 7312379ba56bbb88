"""Prompts put together as one call of `generate` answers them: each alone, or several padded on the left.

Knows tensors and prompts; knows nothing of contenders or clocks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from hf_mmspec.data import model_inputs

from .prompts import Prompt, to_target


@dataclass(frozen=True)
class Batch:
    """Prompts and the tensors that `generate` takes for all of them, a row each, in order."""

    prompts: Sequence[Prompt]
    inputs: dict[str, torch.Tensor]


def in_batches(target: PreTrainedModel, processor: Any, prompts: Sequence[Prompt], size: int) -> list[Batch]:
    """The prompts in order, `size` at a time; the last batch holds what is left."""
    if size == 1:
        return [Batch([prompt], prompt.inputs) for prompt in prompts]
    parts = [prompts[start : start + size] for start in range(0, len(prompts), size)]
    return [Batch(part, _padded(target, processor, part)) for part in parts]


def _padded(target: PreTrainedModel, processor: Any, prompts: Sequence[Prompt]) -> dict[str, torch.Tensor]:
    return to_target(model_inputs(processor, [prompt.conversation for prompt in prompts]), target)
