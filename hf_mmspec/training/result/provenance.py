"""Where a checkpoint comes from: command, code revision, package versions.

Collects facts, decides nothing.
"""

import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PACKAGES = ("torch", "transformers", "accelerate", "datasets", "safetensors", "hf-mmspec")


def provenance() -> dict:
    """Command line, git revision (with "+changes" where the tree was dirty), versions, machine."""
    return {
        "command": " ".join([Path(sys.argv[0]).name, *map(_without_machine, sys.argv[1:])]),
        "git_revision": _git_revision(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "python": platform.python_version(),
        "machine": platform.machine(),
    }


def _without_machine(argument: str) -> str:
    """An absolute path says something about a machine and nothing about the training: its last part is enough."""
    option, equals, value = argument.rpartition("=")
    return option + equals + (Path(value).name if value.startswith("/") else value)


def _git_revision() -> str:
    here = Path(__file__).resolve().parent

    def git(*args: str) -> str:
        return subprocess.run(["git", *args], cwd=here, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"
