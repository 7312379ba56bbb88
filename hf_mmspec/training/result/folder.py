"""The finished drafter's folder, ready for the Hub: weights, config, card, and what made it.

Written beside its place and moved there when it is whole.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch

from hf_mmspec.hub.card import write_card
from hf_mmspec.modeling import Drafter

from ..judging.ranks import Ranks


class FolderInUseError(ValueError):
    """The place of the result is taken by something else."""


def insist_on_place(folder: Path) -> None:
    """Raises FolderInUseError where `folder` is neither new, empty nor a drafter's that this command made."""
    if folder.exists() and (
        not folder.is_dir() or (any(folder.iterdir()) and not (folder / "training.json").exists())
    ):
        raise FolderInUseError(f"{folder} holds something else: give a new folder with --out")


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
