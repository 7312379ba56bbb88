"""Draft steps in a few fixed shapes, for compiled layers: rows rounded up, a cache that is seen as a whole.

Knows no drafter. A compiler takes a shape that changes with every step for a new program; these change rarely.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import nn
from torch.nn.functional import pad

from .draft_state import DrafterCache
from .row_writes import with_room

# Rows of a step; beyond the last, its multiples.
_SIZES = (1, 4, 16)
_SMALLEST_CACHE = 256


class FixedDrafterCache(DrafterCache):
    """A `DrafterCache` of one row with buffers of powers of two of columns, zero where nothing was written: masked
    columns are multiplied by 0, and what memory happens to hold may be no number. Joined with others it is an ordinary
    one."""

    def _with_room(self, store: torch.Tensor | None, states: torch.Tensor, used: int, needed: int) -> torch.Tensor:
        if store is not None and store.shape[2] >= needed:
            return store
        room = 1 << (max(needed, self._capacity, _SMALLEST_CACHE) - 1).bit_length()
        return with_room(states[:, :, :0] if store is None else store, used, room)

    def open(self, count: int) -> "OpenRows":
        """The rows after those in use, for a step of `count` rows."""
        start = self.in_use

        def widened(stores: list[torch.Tensor | None]) -> list[torch.Tensor]:
            return [self._with_room(store, store, start, start + count) for store in stores if store is not None]

        keys, values = widened(self._keys), widened(self._values)
        self._keys[:], self._values[:] = keys, values
        return OpenRows(keys, values, torch.tensor(start, device=keys[0].device))

    @property
    def in_use(self) -> int:
        """Rows that were written and not dropped."""
        return self._used[0]

    def advance(self, count: int) -> None:
        """Of the rows that were written since `open`, the first `count` are in use now."""
        self._used = [used + count for used in self._used]


class OpenRows:
    """What the layers of one step see: buffers for each layer, and a tensor that says where to write."""

    def __init__(self, keys: list[torch.Tensor], values: list[torch.Tensor], start: torch.Tensor):
        self.keys, self.values, self.start = keys, values, start

    def update(self, keys: torch.Tensor, values: torch.Tensor, layer_idx: int, **_: object):
        """Write rows; returns the whole buffers of the layer. The signature that transformers' attention calls."""
        rows = self.start + torch.arange(keys.shape[2], device=keys.device)
        self.keys[layer_idx].index_copy_(2, rows, keys)
        self.values[layer_idx].index_copy_(2, rows, values)
        return self.keys[layer_idx], self.values[layer_idx]


def run_layers(
    layers: Iterable[nn.Module],
    x: torch.Tensor,
    cos_sin: tuple[torch.Tensor, torch.Tensor],
    mask: torch.Tensor | None,
    cache: FixedDrafterCache,
) -> torch.Tensor:
    """What the layers give for `x (1, n, width)`. The prompt, whose length differs from request to request, runs
    uncompiled.

    Args:
        cos_sin: rotary tables `(1, n or 1, head_dim)`.
        mask: additive `(1, 1, n, rows in use + n)`; None where all rows are visible (or causal, for a prompt).
    """
    if cache.stable == 0:
        for layer in layers:
            x = layer._call_impl(x, attention_mask=mask, position_embeddings=cos_sin, cache=cache)
        return x
    rows = x.shape[1]
    missing = round_up(rows, _SIZES) - rows
    seen = cache.open(rows + missing)
    if mask is None:
        mask = x.new_zeros(1, 1, rows, cache.in_use + rows)
    columns = seen.keys[0].shape[2] - mask.shape[-1]
    mask = pad(mask, (0, columns, 0, missing), value=torch.finfo(mask.dtype).min)
    cos, sin = (pad(table.expand(-1, rows, -1), (0, 0, 0, missing)) for table in cos_sin)
    x = pad(x, (0, 0, 0, missing))
    for layer in layers:
        x = layer(x, attention_mask=mask, position_embeddings=(cos, sin), cache=seen)
    cache.advance(rows)
    return x[:, :rows]


def round_up(count: int, sizes: Sequence[int]) -> int:
    """The next of `sizes`, which rise; beyond the last, the next of its multiples."""
    return next((size for size in sizes if size >= count), -(-count // sizes[-1]) * sizes[-1])
