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
from functools import cache
from pathlib import Path

import torch
import transformers
from transformers import PreTrainedModel

from hf_mmspec.modeling.file_modes import follow_umask

from .uncompiled import is_compiled

# What this process has measured or read; the numbers of a key never change while it runs.
_known: dict[str, dict[int, float]] = {}


def remembered(key: str, measure: Callable[[], dict[int, float]], needed: Collection[int]) -> dict[int, float]:
    """The numbers kept for `key`, or those of `measure()`, which are kept from then on.

    Args:
        needed: sizes that `measure` always gives; a file without one of them is damaged.
    """
    path = cache_folder() / f"{key}.json"
    if str(path) not in _known:
        numbers = _read(path, needed)
        if numbers is None:
            numbers = measure()
            _write(path, numbers)
        _known[str(path)] = numbers
    return _known[str(path)]


def forget() -> None:
    """Drop all numbers, here and on disk: they may come from a time when the machine was busy with other work."""
    _known.clear()
    shutil.rmtree(cache_folder(), ignore_errors=True)


def cache_folder() -> Path:
    """`costs` in `$HF_MMSPEC_CACHE`, or in `hf_mmspec` in the Hugging Face cache home.

    An empty variable counts as unset: it would mean the working directory, where `forget` would delete.
    """
    home = os.environ.get("HF_HOME") or os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    return Path(os.environ.get("HF_MMSPEC_CACHE") or os.path.join(home, "hf_mmspec")).expanduser() / "costs"


def fingerprint(*models: PreTrainedModel) -> str:
    """Hex key of what decides a model's speed: machine, threads, library versions, and class, config, dtype, device,
    attention implementation, kinds of layers (packed or not, with adapters or without) and compilation of each."""
    facts = [_machine(), torch.__version__, transformers.__version__, str(torch.get_num_threads())]
    for model in models:
        config = {name: value for name, value in model.config.to_dict().items() if not name.startswith("_name")}
        facts += [type(model).__name__, json.dumps(config, sort_keys=True, default=str)]
        facts += [str(model.dtype), str(model.device), str(model.config._attn_implementation)]
        facts += _kinds_of_layers(model)
        facts += ["compiled"] * any(is_compiled(module) for module in model.modules())
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:32]


def _kinds_of_layers(model: PreTrainedModel) -> list[str]:
    """How many layers there are of each class and kind of weight, and versions of the packages that these are from: a
    config does not tell what was packed or wrapped after loading."""
    kinds: Counter[str] = Counter()
    packages = set()
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            kinds[f"{_name(module)} {_name(parameter)} {parameter.dtype}"] += 1
            packages |= {type(part).__module__.partition(".")[0] for part in (module, parameter)}
    return [f"{kind} x {count}" for kind, count in sorted(kinds.items())] + sorted(map(_version, packages))


def _name(part: object) -> str:
    return f"{type(part).__module__}.{type(part).__qualname__}"


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
    """Written aside and renamed, so that no reader ever sees half a file."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".tmp", delete=False) as file:
            json.dump(numbers, file)
        follow_umask(Path(file.name))
        os.replace(file.name, path)
    except OSError:
        return  # a read-only home costs the next process two seconds, nothing else
