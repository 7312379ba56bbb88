"""Which logits processors and warpers are at work when a target answers: they belong to the numbers.

Asks `generate` itself; runs no forward.
"""

import math
from typing import Any

import torch
from transformers import LogitsProcessorList, PreTrainedModel

from .contenders import sampling_arguments


def active_processors(target: PreTrainedModel, inputs: dict[str, torch.Tensor], temperature: float) -> list[str]:
    """Names and settings, in the order of use, e.g. `"TopKLogitsWarper(top_k=50)"`.

    Args:
        inputs: any prompt of the target.
        temperature: 0 for greedy decoding.
    """
    found: list[LogitsProcessorList] = []

    def note(model: Any, input_ids: torch.Tensor, logits_processor: LogitsProcessorList, **_: Any) -> torch.Tensor:
        found.append(logits_processor)
        return input_ids

    target.generate(**inputs, **sampling_arguments(temperature), custom_generate=note, max_new_tokens=1)
    return [_describe(processor) for processor in found[0]]


def _describe(processor: Any) -> str:
    settings = {name: value for name, value in vars(processor).items() if not name.startswith("_")}
    plain = [f"{name}={value:g}" for name, value in settings.items() if _is_number(value)]
    return f"{type(processor).__name__}({', '.join(plain)})"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
