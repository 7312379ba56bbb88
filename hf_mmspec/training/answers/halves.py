"""Work on a shard that memory may not be enough for: it is done in halves then, and in halves of these.

Knows no model.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch


def in_halves(work: Callable[[Sequence[Any], int], list[Any]], items: Sequence[Any], first: int = 0) -> list[Any]:
    """`work(items, first)`, or where there is no memory for that, of both halves one after the other.

    Args:
        first: number of the first item in all of them together.

    Raises:
        torch.OutOfMemoryError: there is not enough for one item.
    """
    try:
        return work(items, first)
    except torch.OutOfMemoryError:
        if len(items) == 1:
            raise
    # behind the handler, which would keep what the failed try had in memory
    middle = len(items) // 2
    return [*in_halves(work, items[:middle], first), *in_halves(work, items[middle:], first + middle)]
