"""Linear layers with 8-bit weights, one scale per output: half the bytes of a draft step, which is bound by them.

Whether that is faster depends on dtype and processor: torch's kernel is made for bfloat16. Only drafting uses them. A
drafter may be wrong at any time, so rounding costs acceptance at most, never a token.
"""

import torch
from torch import nn

# Beyond so many rows the weights are read once for many of them, and unpacking them costs less than the slow product.
_FEW_ROWS = 16
# torch's kernel reads whole vectors: in bfloat16 it is wrong, or crashes, where the inputs are no multiple of 16.
_VECTOR = 32


class Int8Linear(nn.Module):
    """`nn.Linear` with weights rounded to int8.

    Args:
        linear: the layer to round; its bias is kept as it is.
    """

    weight: torch.Tensor
    scale: torch.Tensor

    def __init__(self, linear: nn.Linear):
        super().__init__()
        weight = linear.weight.detach()
        # Rounded first: whole numbers of another scale than the one that is multiplied would lengthen every row.
        scale = (weight.float().abs().amax(1) / 127).to(weight.dtype).clamp_min(torch.finfo(weight.dtype).tiny)
        whole = (weight.float() / scale.float()[:, None]).round().clamp(-127, 127)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.register_buffer("weight", whole.to(torch.int8))
        self.register_buffer("scale", scale)
        self.bias = linear.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`(..., in_features)` to `(..., out_features)`, in the dtype of `x`."""
        rows = x.reshape(-1, self.in_features)
        if x.device.type == "cpu" and len(rows) <= _FEW_ROWS and self.in_features % _VECTOR == 0:
            product = torch._weight_int8pack_mm(rows.contiguous(), self.weight, self.scale)
            product = product.view(*x.shape[:-1], self.out_features)
            return product if self.bias is None else product + self.bias
        return nn.functional.linear(x, self.weight.to(x.dtype) * self.scale[:, None], self.bias)


def round_linear_layers(module: nn.Module) -> None:
    """Replaces every `nn.Linear` below `module` by its `Int8Linear`."""
    for name, child in module.named_children():
        if type(child) is nn.Linear:
            setattr(module, name, Int8Linear(child))
        else:
            round_linear_layers(child)


def has_int8_weights(module: nn.Module) -> bool:
    """Whether `round_linear_layers` has been here."""
    return any(isinstance(each, Int8Linear) for each in module.modules())
