"""Which dtype this machine multiplies small matrices in fastest: asked by measuring, not by vendor names.

Its border: one decision. What counts is one row and eight rows together (decoding and verifying a
draft).
"""

import time
from functools import lru_cache

import torch

_WIDTH = 1536
_REPEATS = 12


def _seconds(dtype: torch.dtype, rows: int) -> float:
    weights = [torch.randn(_WIDTH, _WIDTH).to(dtype) for _ in range(4)]  # more than one, so that caches do not flatter
    x = torch.randn(rows, _WIDTH).to(dtype)
    best = float("inf")
    with torch.inference_mode():
        for _ in range(_REPEATS):
            started = time.perf_counter()
            for weight in weights:
                torch.nn.functional.linear(x, weight)
            best = min(best, time.perf_counter() - started)
    return best


@lru_cache(maxsize=1)
def fast_dtype() -> torch.dtype:
    """torch.bfloat16 where its 1-row and 8-row products together take less time than float32's, else torch.float32.

    With CUDA the answer is torch.bfloat16 if the device supports it. Takes about 0.1 s once per process.
    """
    if torch.cuda.is_available():
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    half = [_seconds(torch.bfloat16, rows) for rows in (1, 8)]
    full = [_seconds(torch.float32, rows) for rows in (1, 8)]
    return torch.bfloat16 if sum(half) < sum(full) else torch.float32
