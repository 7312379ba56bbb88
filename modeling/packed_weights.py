"""Tables of a target that may be packed (quantised) or away (offloaded): which can be read, and how to get the others.

Knows no quantisation library: what is packed says nothing by its shape or dtype, so it is asked through its module.
"""

from typing import Any

import torch
from torch import nn

# bitsandbytes' 4-bit kernels for processors take rows of a weight in blocks of 32, and columns in blocks of 64.
_ROWS, _COLUMNS = 32, 64
_UNITS_AT_ONCE = 256  # rows of the identity in one call: 256 x 152,000 float32 logits are 150 MB


def input_device(weight: torch.Tensor) -> torch.device:
    """Where to put the inputs of the target's module that owns `weight`. Offloaded weights are on "meta" until the
    module runs, and its hooks then move inputs from anywhere."""
    return torch.device("cpu") if weight.is_meta else weight.device


def readable_weight(module: Any) -> torch.Tensor | None:
    """The module's weight `(out, in)` where rows of it can be read; None where they are packed, offloaded, or missing.

    Neither shape nor dtype alone tells: 4-bit weights may be stored as bfloat16 (`bnb_4bit_quant_storage`), and
    torchao's subclasses say the shape and dtype that they stand for.
    """
    weight: Any = getattr(module, "weight", None)
    if type(weight) not in (torch.Tensor, nn.Parameter) or weight.is_meta or not weight.is_floating_point():
        return None
    size = rows_of(module, weight.shape[0])
    return weight if weight.ndim == 2 and weight.shape[0] == size and weight.shape[1] > 1 else None


def rows_of(module: Any, default: int) -> int:
    """Rows of a linear layer or an embedding, as the module says them: a packed weight has another shape."""
    for name in ("out_features", "num_embeddings"):
        if isinstance(getattr(module, name, None), int):
            return getattr(module, name)
    weight = getattr(module, "weight", None)
    return default if weight is None else weight.shape[0]


def fits_kernels(layer: Any) -> bool:
    """Whether bitsandbytes' 4-bit kernels for processors take a linear layer of this size."""
    return layer.out_features % _ROWS == 0 and layer.in_features % _COLUMNS == 0


def unusable_layers(model: nn.Module) -> list[str]:
    """Layers that bitsandbytes has packed to 4 bits and cannot run on this processor."""
    return [
        name
        for name, layer in model.named_modules()
        if getattr(layer, "support_avx512bf16_for_cpu", False)
        and head_device(layer) == torch.device("cpu")
        and not fits_kernels(layer)
    ]


def dtype_into(head: Any, model: Any) -> torch.dtype:
    """What the head of `model` takes: its weight's dtype, or where that is packed, that of the states it gets.

    bitsandbytes casts a bias in place to the dtype of its input, so that another one would change the target.
    """
    weight = readable_weight(head)
    if weight is not None:
        return weight.dtype
    embeddings = readable_weight(model.get_input_embeddings())
    return model.dtype if embeddings is None else embeddings.dtype


@torch.no_grad()
def head_rows(head: Any, ids: torch.Tensor, hidden_size: int, dtype: torch.dtype) -> torch.Tensor:
    """Rows `ids` `(n,)` of a head's weight, `(n, hidden_size)` in `dtype`; where they cannot be read, from what the
    head answers to unit vectors (`hidden_size` rows, in a few calls).

    Args:
        dtype: what the head takes.
    """
    weight = readable_weight(head)
    if weight is not None:
        return weight[ids.to(weight.device)].to(dtype)
    device = head_device(head)
    units = torch.eye(hidden_size, dtype=dtype, device=device)
    nothing = head(torch.zeros_like(units[:1]))  # the bias, if there is one
    columns = [(head(chunk) - nothing)[:, ids.to(nothing.device)] for chunk in units.split(_UNITS_AT_ONCE)]
    return torch.cat(columns).T.contiguous()


def head_device(head: Any) -> torch.device | None:
    """Where the head takes its inputs; None where it does not tell."""
    weight = getattr(head, "weight", None)
    return None if weight is None else input_device(weight)
