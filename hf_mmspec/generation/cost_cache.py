"""Keeps measured costs in the process and on disk, one small JSON file per key.

Knows nothing about what the numbers mean, only that they are costs by size: integers to positive numbers. A file that
holds anything else, or cannot be read or written, is ignored, never fatal.
"""

import hashlib
import importlib.metadata
import json
import math
import os
import platform
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
import transformers
from torch import nn
from transformers import PreTrainedModel

from hf_mmspec.modeling.file_modes import follow_umask

from .uncompiled import is_compiled, modules_of

_CHANGED = 0.05  # smaller corrections are not worth a write


@dataclass(frozen=True)
class Measured:
    """Numbers by size, and whether repeated measurements agreed on them."""

    numbers: dict[int, float]
    is_steady: bool = True


@dataclass
class Known:
    """What this process knows for a key.

    Args:
        numbers: by size.
        in_doubt: they were measured unsteadily.
        wait: requests after which doubtful numbers are measured again; doubles each time, so that a machine that is
            always busy is not measured for every request.
    """

    numbers: dict[int, float]
    in_doubt: bool = False
    wait: int = 1
    asked: int = 0

    def should_be_measured_again(self) -> bool:
        """Asked once per request."""
        self.asked += self.in_doubt
        return self.asked >= self.wait and self.in_doubt


# What this process has measured or read, by file.
_known: dict[str, Known] = {}


def remembered(
    key: str,
    measure: Callable[[], Measured],
    needed: Collection[int],
    are_credible: Callable[[dict[int, float]], bool] = lambda numbers: True,
) -> Known:
    """The numbers kept for `key`, or those of `measure()`. Steady ones are kept from then on, here and on disk;
    others only here, until a later call measures again.

    Args:
        needed: sizes that `measure` always gives; a file without one of them is damaged.
        are_credible: whether a file's numbers can be true.
    """
    path = cache_folder() / f"{key}.json"
    known = _known.get(str(path))
    if known is None and (numbers := _read(path, needed)) is not None and are_credible(numbers):
        known = Known(numbers)
    if known is None or known.should_be_measured_again():
        measured = measure()
        if measured.is_steady:
            _write(path, measured.numbers)
        known = Known(measured.numbers, not measured.is_steady, wait=1 if known is None else 2 * known.wait)
    _known[str(path)] = known
    return known


def revise(key: str, numbers: dict[int, float]) -> None:
    """Replace the numbers of `key`, here and, where they changed much, on disk."""
    path = cache_folder() / f"{key}.json"
    before = _known.get(str(path))
    _known[str(path)] = Known(numbers)
    if before is None or before.in_doubt or _differ(before.numbers, numbers):
        _write(path, numbers)
    else:
        _known[str(path)] = before  # so that small changes add up to a large one


def _differ(before: dict[int, float], now: dict[int, float]) -> bool:
    if before.keys() != now.keys():
        return True
    return any(abs(now[size] - seconds) > _CHANGED * seconds for size, seconds in before.items())


def forget() -> None:
    """Drop all numbers, here and on disk: they may come from a time when the machine was busy with other work."""
    _known.clear()
    shutil.rmtree(cache_folder(), ignore_errors=True)


def forget_in_process() -> None:
    """Drop what this process knows and leave the disk alone: as a new process starts."""
    _known.clear()


def cache_folder() -> Path:
    """`costs` in `$HF_MMSPEC_CACHE`, or in `hf_mmspec` in the Hugging Face cache home.

    An empty variable counts as unset: it would mean the working directory, where `forget` would delete.
    """
    home = os.environ.get("HF_HOME") or os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    return Path(os.environ.get("HF_MMSPEC_CACHE") or os.path.join(home, "hf_mmspec")).expanduser() / "costs"


def fingerprints(*models: PreTrainedModel) -> list[str]:
    """Hex keys of the first model, of the first two, and so on: what decides their speed, which is machine, threads,
    library versions, and class, config, dtype, device, attention implementation, kinds of layers (packed or not, with
    adapters or without) and compilation of each."""
    facts = [_machine(), torch.__version__, transformers.__version__, str(torch.get_num_threads())]
    keys = []
    for model in models:
        facts += _facts(model)
        keys.append(hashlib.sha256("\n".join(facts).encode()).hexdigest()[:32])
    return keys


def _facts(model: PreTrainedModel) -> list[str]:
    config = {name: value for name, value in model.config.to_dict().items() if not name.startswith("_name")}
    facts = [type(model).__name__, json.dumps(config, sort_keys=True, default=str)]
    has_weights = next(model.parameters(), None) is not None  # which dtype and device are read from
    facts += [str(model.dtype), str(model.device)] if has_weights else ["no weights"]
    modules = modules_of(model)
    facts += [str(model.config._attn_implementation), *_kinds_of_layers(modules)]
    return facts + ["compiled"] * any(map(is_compiled, modules))


def _kinds_of_layers(modules: list[nn.Module]) -> list[str]:
    """How many layers there are of each class and kind of weight, and versions of the packages that these are from: a
    config does not tell what was packed or wrapped after loading."""
    kinds: Counter[tuple[type, type, torch.dtype]] = Counter()
    for module in modules:
        # not `parameters()`, which is slow: a request waits for this
        kinds.update(
            (type(module), type(each), each.dtype) for each in module._parameters.values() if each is not None
        )
    packages = {part.__module__.partition(".")[0] for kind in kinds for part in kind[:2]}
    told = (f"{_name(layer)} {_name(weight)} {dtype} x {count}" for (layer, weight, dtype), count in kinds.items())
    return sorted(told) + sorted(map(_version, packages))


def _name(part: type) -> str:
    return f"{part.__module__}.{part.__qualname__}"


@cache
def _version(package: str) -> str:
    try:
        return f"{package} {importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError:  # a folder of the user's own, or a module of remote code
        return ""


@cache
def _machine() -> str:
    """Processor and accelerator, as far as they can be named."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = "".join(dict.fromkeys(line for line in lines if line.startswith(("model name", "flags"))))
    except OSError:
        cpu = platform.processor()
    accelerator = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    return f"{platform.machine()} {os.cpu_count()} {cpu} {accelerator}"


def _read(path: Path, needed: Collection[int]) -> dict[int, float] | None:
    """The numbers in the file; None where it is not there or damaged."""
    try:
        numbers = {int(size): float(seconds) for size, seconds in json.loads(path.read_text()).items()}
    except (OSError, ValueError, AttributeError, TypeError, OverflowError):
        return None
    is_sound = all(size >= 0 and 0 < seconds < math.inf for size, seconds in numbers.items())
    return numbers if is_sound and numbers.keys() >= set(needed) else None


def _write(path: Path, numbers: dict[int, float]) -> None:
    """Written aside and renamed, so that no reader ever sees half a file; not by `whole_file.py`, which is not
    published with this folder."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".tmp", delete=False) as file:
            json.dump(numbers, file)
        follow_umask(Path(file.name))
        os.replace(file.name, path)
    except OSError:
        return  # a read-only home costs the next process two seconds, nothing else
