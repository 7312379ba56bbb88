"""Where a checkpoint comes from: command, code revision, package versions.

Collects facts, decides nothing.
"""

import platform
import sys
from pathlib import Path

from hf_mmspec.evaluation.machine import git_revision, package_version

_PACKAGES = ("torch", "transformers", "accelerate", "datasets", "safetensors", "hf-mmspec")


def provenance() -> dict:
    """Command line, git revision, versions, machine; None is not known."""
    return {
        "command": " ".join([Path(sys.argv[0]).name, *map(_without_machine, sys.argv[1:])]),
        "git_revision": git_revision(),
        "packages": {name: package_version(name) for name in _PACKAGES},
        "python": platform.python_version(),
        "machine": platform.machine(),
    }


def _without_machine(argument: str) -> str:
    """An absolute path says something about a machine and nothing about the training: its last part is enough."""
    option, equals, value = argument.rpartition("=")
    return option + equals + (Path(value).name if value.startswith("/") else value)
