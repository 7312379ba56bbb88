"""Training passes side by side, each on the outputs of the one before: their keys, values and masks.

Knows no drafter; a pass sees exactly what its drafts will see.
"""

import torch
from transformers.models.llama.modeling_llama import rotate_half


class UnrollCache:
    """Keys and values of the unrolled training steps, side by side, with their gradients."""

    def __init__(self) -> None:
        self._rows: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def update(self, keys: torch.Tensor, values: torch.Tensor, layer_idx: int, **_: object):
        """Append a step; returns all rows of the layer."""
        if layer_idx in self._rows:
            past_keys, past_values = self._rows[layer_idx]
            keys, values = torch.cat([past_keys, keys], dim=2), torch.cat([past_values, values], dim=2)
        self._rows[layer_idx] = (keys, values)
        return keys, values

    def split(self, layer_idx: int, sizes: list[int]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Keys and values of a layer by step, whose numbers of rows are `sizes`."""
        keys, values = self._rows[layer_idx]
        return list(zip(keys.split(sizes, dim=2), values.split(sizes, dim=2), strict=True))


def without_rotation(keys: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Keys `(..., head_dim)` as they were before the rotary embedding multiplied them by these tables."""
    return (keys * cos - rotate_half(keys) * sin) / (cos.square() + sin.square())


def unroll_mask(x: torch.Tensor, step: int, first: int) -> torch.Tensor:
    """Additive `(1, 1, R, first + (step + 1) * R)` for unrolled step `step` over R rows that follow `first` others:
    plain rows up to j - step, then for each step i up to this one the only row that is an ancestor (or self),
    j - step + i."""
    plain = torch.arange(first + x.shape[1], device=x.device)
    rows = plain[first:]
    behind = rows[:, None] - rows[None, :]
    blocks = [rows[:, None] - plain[None, :] >= torch.clamp(rows, max=step)[:, None]]  # early rows keep row 0
    blocks += [behind == step - i for i in range(1, step + 1)]
    allowed = torch.cat(blocks, dim=1)
    return x.new_zeros(allowed.shape).masked_fill_(~allowed, torch.finfo(x.dtype).min)[None, None]


def slot_mask(x: torch.Tensor, slot: int, first: int) -> torch.Tensor:
    """Additive `(1, 1, R, first + (slot + 1) * R)` for slot `slot` of a k-slot block, over R rows that follow `first`
    others: all slots 0 up to the own row's, then of every further slot only that of the own row."""
    plain = torch.arange(first + x.shape[1], device=x.device)
    rows = plain[first:]
    own = rows[:, None] == rows[None, :]
    allowed = torch.cat([rows[:, None] >= plain[None, :]] + [own] * slot, dim=1)
    return x.new_zeros(allowed.shape).masked_fill_(~allowed, torch.finfo(x.dtype).min)[None, None]
