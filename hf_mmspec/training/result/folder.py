"""The finished drafter's folder, ready for the Hub: weights, config, card, and what made it.

Written beside its place and moved there when it is whole.
"""

import json
import os
import shutil
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch

from hf_mmspec import modeling
from hf_mmspec.hub.card import write_card
from hf_mmspec.modeling import Drafter

from ..judging.ranks import Ranks


class FolderInUseError(ValueError):
    """The place of the result is taken by something else."""


# All that `save_result` writes besides the code of `modeling/`; weights may be in shards.
_WEIGHTS = ("model*.safetensors", "model.safetensors.index.json")
_WRITTEN = (*_WEIGHTS, "config.json", "generation_config.json", "training.json", "README.md")


def insist_on_place(folder: Path) -> None:
    """Raises FolderInUseError where `folder` has no name, or is neither new, empty nor a drafter's that this command
    made and to which nothing was added: a new result replaces it whole."""
    if folder.name in ("", ".."):
        raise FolderInUseError(f"--out {folder}: give a folder by its own name, as the result is moved there")
    if not folder.exists():
        return
    if not folder.is_dir() or (any(folder.iterdir()) and not (folder / "training.json").exists()):
        raise FolderInUseError(f"{folder} holds something else: give a new folder with --out")
    added = [path.name for path in sorted(folder.iterdir()) if not _is_written(path.name)]
    if added:
        raise FolderInUseError(
            f"{folder} is a drafter to which {', '.join(added)} was added, and a new result replaces it whole: move "
            "it away, or give a new folder with --out"
        )


def _is_written(name: str) -> bool:
    code = Path(modeling.__file__).parent / name
    return any(fnmatch(name, pattern) for pattern in _WRITTEN) or (code.suffix == ".py" and code.is_file())


def save_result(
    folder: Path,
    drafter: Drafter,
    ranks: Ranks,
    training: dict[str, Any],
    dtype: torch.dtype = torch.bfloat16,
) -> None:
    """Write everything, then put it in its place; an older result of the same name is replaced.

    Args:
        training: goes into `training.json`, which the card is made of.
        dtype: of the weights.
    """
    partial, old = (folder.with_name(f".{folder.name}.{state}") for state in ("partial", "old"))
    for left_over in (partial, old):
        shutil.rmtree(left_over, ignore_errors=True)
    drafter.config.acceptance_by_depth, drafter.config.acceptance_by_rank = ranks.by_depth, ranks.by_rank
    drafter.to(dtype).save_pretrained(partial)
    (partial / "training.json").write_text(json.dumps({**training, "chain": ranks.chain}, indent=1) + "\n")
    write_card(partial, name=folder.name)
    if folder.exists():
        os.replace(folder, old)  # removing it takes time, and the place would be empty for so long
    os.replace(partial, folder)
    shutil.rmtree(old, ignore_errors=True)
