"""Writing into keys and values that are kept in place: a batch's rows may each go on at a place of their own.

Moves numbers only; knows neither models nor trees. Buffers are `(B, heads, capacity, head_dim)`, the places in them
columns.
"""

from collections.abc import Sequence

import torch


def columns_after(lengths: Sequence[int], count: int, device: torch.device) -> torch.Tensor | None:
    """The `count` columns after `lengths[b]` in each row b, `int64 (B, count)`; None where all lengths are the same,
    as a slice is faster."""
    if len(set(lengths)) == 1:
        return None
    return torch.tensor(lengths, device=device)[:, None] + torch.arange(count, device=device)


def write(buffer: torch.Tensor, states: torch.Tensor, start: int, columns: torch.Tensor | None) -> None:
    """Write `states (B, heads, n, head_dim)` to `columns (B, n)`; without those, to the n columns from `start` on."""
    if columns is None:
        buffer[:, :, start : start + states.shape[2]] = states
    else:
        rows = torch.arange(states.shape[0], device=buffer.device)[:, None]
        buffer[rows, :, columns.to(buffer.device)] = states.transpose(1, 2).to(buffer.device)


def move(buffer: torch.Tensor, source: torch.Tensor, target: torch.Tensor) -> None:
    """Copy the columns `source (B, k)` of each row to its columns `target (B, k)`."""
    rows = torch.arange(source.shape[0], device=buffer.device)[:, None]
    buffer[rows, :, target] = buffer[rows, :, source]


def with_room(buffer: torch.Tensor, used: int, capacity: int) -> torch.Tensor:
    """A larger buffer with the first `used` columns of `buffer`. The others are zeros: columns that a shorter row has
    not written are masked, and a masked NaN would still be one."""
    grown = buffer.new_zeros(*buffer.shape[:2], capacity, buffer.shape[3])
    grown[:, :, :used] = buffer[:, :, :used]
    return grown
