"""What a process holds: resident memory and live tensors, after what is free was given back."""

import ctypes
import gc
import resource
import sys
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class Held:
    """Resident bytes, and how many tensors are alive."""

    resident: int
    tensors: int


def held() -> Held:
    """Now."""
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)
    tensors = sum(1 for each in gc.get_objects() if issubclass(type(each), torch.Tensor))
    return Held(_resident(), tensors)


def growth(seen: list[Held]) -> float:
    """How much more resident memory there ever was than at the first of these, as a share of it."""
    return max(each.resident for each in seen) / seen[0].resident - 1


def _resident() -> int:
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * resource.getpagesize()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
