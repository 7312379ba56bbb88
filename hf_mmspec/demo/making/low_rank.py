"""LoRA as a change of the weights themselves: W + scale B A is made once per step, then each layer is one product.

The thin path beside every layer that LoRA usually is would move all activations twice more. Its border: parametrised
linear layers and their two factors.
"""

import torch
from torch import nn
from torch.nn.utils import parametrize

from ..model.weights import Tensors

RANK = 16
LORA_SCALE = 2.0


class LowRank(nn.Module):
    """`forward(W)` is W plus the scaled product of `b` [out, r] and `a` [r, in] (float32)."""

    def __init__(self, a: torch.Tensor, b: torch.Tensor):
        super().__init__()
        self.a, self.b = nn.Parameter(a.float()), nn.Parameter(b.float())

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """The changed weight, in the dtype of `weight`."""
        return torch.addmm(weight.float(), self.b, self.a, alpha=LORA_SCALE).to(weight.dtype)


def add_low_rank(model: nn.Module, lora: Tensors) -> dict[str, LowRank]:
    """Freezes the model and changes every module that `lora` names by `MODULE.A` and `MODULE.B`; module -> factors."""
    model.requires_grad_(False)
    factors = {}
    for name in sorted({key.rpartition(".")[0] for key in lora}):
        factors[name] = LowRank(lora[f"{name}.A"], lora[f"{name}.B"])
        parametrize.register_parametrization(model.get_submodule(name), "weight", factors[name])
    return factors
