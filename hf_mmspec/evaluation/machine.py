"""Facts about the machine and the software that a measurement cannot be read without.

Looks only at this process and its processor; loads no model.
"""

import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("hf-mmspec", "torch", "transformers", "huggingface-hub", "safetensors")


def cpu_flags() -> frozenset[str]:
    """Instruction sets as Linux names them; empty on systems that do not tell."""
    for line in _cpuinfo():
        if line.startswith(("flags", "Features")):
            return frozenset(line.partition(":")[2].split())
    return frozenset()


def cpu_name() -> str:
    """The processor's own name, as far as the system knows it."""
    names = [line.partition(":")[2].strip() for line in _cpuinfo() if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def machine_facts(dtype: torch.dtype | None = None, device: torch.device | str = "cpu") -> dict[str, Any]:
    """The `machine` part of a report: processor, instruction sets, threads, dtype, versions, revision, command."""
    flags = cpu_flags()
    return {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "amx": "amx_bf16" in flags,
        "avx512_bf16": "avx512_bf16" in flags,
        "avx2": "avx2" in flags,
        "threads": torch.get_num_threads(),
        "device": str(device),
        "accelerator": torch.cuda.get_device_name() if torch.device(device).type == "cuda" else None,
        "dtype": str(dtype).removeprefix("torch.") if dtype else None,
        "python": platform.python_version(),
        "versions": {name: package_version(name) for name in PACKAGES},
        "git_revision": git_revision(),
        "command": _command(),
    }


def _command() -> str:
    """What was called, without its folders; `python -m hf_mmspec` is `mmspec`."""
    name = Path(sys.argv[0]).name
    return shlex.join(["mmspec" if name == "__main__.py" else name, *sys.argv[1:]])


def git_revision() -> str | None:
    """The revision of the checkout that runs, `-dirty` appended where it differs; None outside of a checkout of the
    package, as where it is installed within that of somebody else."""
    here = Path(__file__)
    if _git("ls-files", "--error-unmatch", here.name, cwd=here.parent) is None:
        return None
    return _git("describe", "--always", "--dirty", "--abbrev=12", "--exclude=*", cwd=here.parent)


def package_version(package: str) -> str | None:
    """Of an installed package; None where it is not."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git(*arguments: str, cwd: Path) -> str | None:
    """What git says; None where it says nothing or cannot."""
    try:
        done = subprocess.run(["git", *arguments], cwd=cwd, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def _cpuinfo() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []
