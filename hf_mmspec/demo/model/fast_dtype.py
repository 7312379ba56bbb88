"""Which dtype this machine multiplies small matrices in fastest: asked by measuring, not by vendor names.

Its border: one decision. What counts is one row, eight and thirty-two together: decoding, verifying a small draft and
a large one. Without units for it, bfloat16 may be as fast as float32 in a few rows, which wait for memory, and takes
twice as long for many.
"""

from collections.abc import Callable
from functools import cache, partial

import torch

from hf_mmspec.generation.steadiness import Timings, take_turns

_WIDTH = 1536
_REPEATS = 8
_DTYPES = (torch.bfloat16, torch.float32)
_ROWS = (1, 8, 32)
_TRIES = 3


class _Unsteady(Exception):
    """Carries the decision that a busy machine allowed, so that it is not cached."""

    def __init__(self, dtype: torch.dtype):
        super().__init__()
        self.dtype = dtype


def fast_dtype() -> torch.dtype:
    """torch.bfloat16 where its products of 1, 8 and 32 rows together take less time than those of torch.float32, else
    that.

    With CUDA the answer is torch.bfloat16 if the device supports it. Takes some tenths of a second once per process;
    three times that, and again the next time, while the machine is busy with other work.
    """
    if torch.cuda.is_available():
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    try:
        return _measured()
    except _Unsteady as guess:
        return guess.dtype


@cache
def _measured() -> torch.dtype:
    """The dtype whose products take least time; repeats take turns, so that a busy moment hits both alike, and the
    fastest counts, since other programs only ever add time.

    Raises:
        _Unsteady: the machine was busy each time. Nothing is cached then.
    """
    runs = {(dtype, rows): _product(dtype, rows) for dtype in _DTYPES for rows in _ROWS}
    best: dict[tuple[torch.dtype, int], float] = {}
    for _ in range(_TRIES):
        timings: Timings[tuple[torch.dtype, int]] = take_turns(runs, torch.device("cpu"), _REPEATS)
        for name, seconds in timings.minima().items():
            best[name] = min(seconds, best.get(name, seconds))
        if timings.is_steady:
            return _fastest(best)
    raise _Unsteady(_fastest(best))


def _fastest(seconds: dict[tuple[torch.dtype, int], float]) -> torch.dtype:
    return min(_DTYPES, key=lambda dtype: sum(seconds[dtype, rows] for rows in _ROWS))


def _product(dtype: torch.dtype, rows: int) -> Callable[[], None]:
    weights = [torch.randn(_WIDTH, _WIDTH).to(dtype) for _ in range(4)]  # more than one, so that caches do not flatter
    return partial(_multiply, torch.randn(rows, _WIDTH).to(dtype), weights)


@torch.inference_mode()
def _multiply(x: torch.Tensor, weights: list[torch.Tensor]) -> None:
    for weight in weights:
        torch.nn.functional.linear(x, weight)
