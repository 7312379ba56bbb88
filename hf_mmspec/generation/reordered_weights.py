"""Float32 weights in MKL's own order, in which a few rows take little more time than one.

What is reordered once stays beside the weights for as long as these live, in as much memory again for each size. The
operators are those of models that `torch.compile` froze. Knows nothing of models, trees or drafters.
"""

import threading
from collections.abc import Collection

import torch
from torch.utils.weak import WeakTensorKeyDictionary

SIZES = (16, 32)  # rows; a weight is reordered for so many and no other number, so fewer are filled up with zeros
# Enough for drafters. Whole answers of a target gained nothing for as much memory again (docs/benchmarks.md).
_MOST_BYTES = 96 << 20


def size_for(rows: int) -> int:
    """The smallest size that `rows` fit in."""
    return next(size for size in SIZES if size >= rows)


class ReorderedWeight:
    """A weight of `(out, in)` for `size` rows, made again where it is out of date."""

    def __init__(self, weight: torch.Tensor, size: int):
        self.size = size
        self._weight, self._reordered = weight, _up_to_date(weight, size)

    def product(self, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """`nn.functional.linear` of a float32 `x` with at most `size` rows."""
        rows = x.reshape(-1, x.shape[-1])
        missing = self.size - len(rows)
        filled = torch.nn.functional.pad(rows, (0, 0, 0, missing)) if missing else rows
        product = torch.ops.mkl._mkl_linear(filled, self._reordered, self._weight, bias, self.size)
        return product[: len(rows)].view(*x.shape[:-1], -1)


def sizes_with_room(weights: Collection[torch.Tensor]) -> tuple[int, ...]:
    """For how many rows `weights` may be reordered: none without MKL, else those that `_MOST_BYTES` are enough for."""
    if not (torch.backends.mkl.is_available() and hasattr(torch.ops.mkl, "_mkl_linear")):
        return ()
    each = sum(weight.nbytes for weight in weights)
    return SIZES[: _MOST_BYTES // each] if each else ()


# A weight's product with a fixed vector, threads, and reordered forms by size, as of the last request.
_reordered: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
_lock = threading.Lock()


def _up_to_date(weight: torch.Tensor, size: int) -> torch.Tensor:
    """The weight may have been trained, or an adapter merged, since then: its product with a vector tells,
    which reads it once. What this does not show is less than what products are rounded by."""
    probe = weight.detach() @ torch.linspace(1, 2, weight.shape[1])
    threads = torch.get_num_threads()
    with _lock:
        known = _reordered.get(weight)
    if known is None or known[1] != threads or not torch.equal(known[0], probe):
        known = probe, threads, {}
    if size not in known[2]:
        known[2][size] = torch.ops.mkl._mkl_reorder_linear_weight(weight.detach().contiguous(), size)
    with _lock:
        _reordered[weight] = known
    return known[2][size]
