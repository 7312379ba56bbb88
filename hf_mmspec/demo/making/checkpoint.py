"""Training state that survives a kill: written to a temporary file, then renamed over the old one.

Its border: one file per stage. What the state holds is the stage's business.
"""

import os
from pathlib import Path

import torch


def save_state(path: Path, state: dict) -> None:
    """Writes `state` to `path`; a reader sees the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    torch.save(state, temporary)
    os.replace(temporary, path)


def load_state(path: Path) -> dict | None:
    """The state last saved under `path`, or None before the first."""
    return torch.load(path, map_location="cpu", weights_only=True) if path.exists() else None
