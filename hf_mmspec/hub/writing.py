"""Writes a planned conversion: shard by shard, resumable, and visible only when it is complete.

Decides nothing about names or values; no more than one shard is ever held.
"""

import json
import os
import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from ..modeling.file_modes import follow_umask
from .errors import ConversionError
from .plan import Plan
from .tensor_files import open_tensors

SHARD_BYTES = 2**30
_STATE = "conversion-state.json"


def check_destination(destination: Path) -> None:
    """Raise `ConversionError` where the result could not go."""
    if destination.exists() and not (destination.is_dir() and not any(destination.iterdir())):
        raise ConversionError(f"{destination} exists already: choose another folder, or remove it")


def write(plan: Plan, destination: Path, record: dict[str, Any], shard_bytes: int = SHARD_BYTES) -> None:
    """Write the drafter's folder.

    Shards go to a folder beside `destination`, which takes its name at the end. An interrupted conversion leaves that
    folder, and the next one of the same files goes on after its last complete shard.

    Args:
        record: what `conversion.json` will say about where the drafter comes from.
        shard_bytes: a shard is no larger, unless by one tensor.

    Raises:
        ConversionError: the destination exists, or the disk is too small.
    """
    check_destination(destination)
    shards = _name_shards(_split(plan, shard_bytes))
    total = sum(plan.nbytes(ours) for ours in (*plan.sources, *plan.made))
    partial = destination.with_name(f".{destination.name}.partial")
    _check_room(partial, total)
    destination.parent.mkdir(parents=True, exist_ok=True)
    _resume_or_start(partial, _identity(plan, shards))
    for name, tensors in shards.items():
        if not (partial / name).exists():
            _write_shard(plan, tensors, partial / name)
    if len(shards) > 1:
        where = {ours: name for name, tensors in shards.items() for ours in tensors}
        _write_json(partial / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": where})
    plan.config.save_pretrained(partial)
    _write_json(partial / "conversion.json", record)
    (partial / _STATE).unlink()
    if destination.exists():
        destination.rmdir()
    os.replace(partial, destination)


def _split(plan: Plan, shard_bytes: int) -> list[list[str]]:
    shards: list[list[str]] = [[]]
    room = shard_bytes
    for ours in sorted([*plan.sources, *plan.made]):
        size = plan.nbytes(ours)
        if size > room and shards[-1]:
            shards.append([])
            room = shard_bytes
        shards[-1].append(ours)
        room -= size
    return shards


def _name_shards(shards: list[list[str]]) -> dict[str, list[str]]:
    if len(shards) == 1:
        return {"model.safetensors": shards[0]}
    count = len(shards)
    return {f"model-{i:05d}-of-{count:05d}.safetensors": tensors for i, tensors in enumerate(shards, start=1)}


def _identity(plan: Plan, shards: dict[str, list[str]]) -> dict[str, Any]:
    """What must be the same for shards of an earlier attempt to count."""
    files = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in plan.checkpoint.files]
    return json.loads(json.dumps({"files": files, "shards": shards, "sources": plan.sources}))


def _resume_or_start(partial: Path, identity: dict[str, Any]) -> None:
    state = partial / _STATE
    try:
        if json.loads(state.read_text()) == identity:
            return
    except (OSError, ValueError):
        pass
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    _write_json(state, identity)


def _check_room(partial: Path, total: int) -> None:
    """What an earlier attempt left counts as room, whether it is used or replaced."""
    disk = next(folder for folder in partial.parents if folder.exists())
    earlier = sum(file.stat().st_size for file in partial.glob("*") if file.is_file())
    room = shutil.disk_usage(disk).free + earlier
    if total > room:
        raise ConversionError(
            f"the drafter needs {total / 1e9:.1f} GB but the disk of {disk} has {room / 1e9:.1f} GB left"
        )


def _write_shard(plan: Plan, names: list[str], file: Path) -> None:
    unfinished = file.with_suffix(".unfinished")
    with ExitStack() as files:
        # Opened for each shard anew, so that pages of the shards before are given back.
        readers = {
            source: files.enter_context(open_tensors(source))
            for source in {plan.checkpoint.tensors[plan.sources[ours]].file for ours in names if ours in plan.sources}
        }
        tensors = _separate({ours: _tensor(plan, ours, readers) for ours in names})
        save_file(tensors, unfinished, metadata={"format": "pt"})
        del tensors
    follow_umask(unfinished)
    os.replace(unfinished, file)


def _tensor(plan: Plan, ours: str, readers: dict[Path, Any]) -> torch.Tensor:
    if ours in plan.made:
        return plan.made[ours]
    theirs = plan.sources[ours]
    return readers[plan.checkpoint.tensors[theirs].file](theirs).contiguous()


def _separate(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tied weights of a `.bin` share memory, which safetensors does not store."""
    seen: set[int] = set()
    for name, tensor in tensors.items():
        memory = tensor.untyped_storage().data_ptr()
        tensors[name] = tensor.clone() if memory in seen else tensor
        seen.add(memory)
    return tensors


def _write_json(file: Path, content: dict[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
