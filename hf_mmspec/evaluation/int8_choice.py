"""Whether a drafter drafts faster with weights rounded to int8, on this machine and in its dtype.

Rounds nothing but a copy of one layer.
"""

from functools import partial

import torch
from torch import nn

from hf_mmspec.generation.steadiness import take_turns
from hf_mmspec.modeling.int8_linear import Int8Linear

_ROWS = (1, 8)  # a chain's step, and a level of a tree
_REPETITIONS = 5


@torch.no_grad()
def is_faster_in_int8(drafter: nn.Module) -> bool:
    """By the largest linear layer, with the rows of draft steps: torch's kernel for int8 weights takes several times
    as long in float32 as in bfloat16. False where there is no linear layer."""
    layers = [each for each in drafter.modules() if type(each) is nn.Linear]
    if not layers:
        return False
    usual = max(layers, key=lambda layer: layer.weight.numel())
    inputs = [torch.ones(1, rows, usual.in_features, dtype=usual.weight.dtype) for rows in _ROWS]

    def multiply(layer: nn.Module) -> None:
        for x in inputs:
            layer(x)

    runs = {"usual": partial(multiply, usual), "rounded": partial(multiply, Int8Linear(usual))}
    least = take_turns(runs, usual.weight.device, _REPETITIONS).minima()
    return least["rounded"] < least["usual"]
