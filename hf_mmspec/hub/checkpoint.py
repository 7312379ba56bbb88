"""An authors' checkpoint: its config, its README and its tensors, from a folder or a Hub repository.

Finds and lists; what the names mean is the layouts' business.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers.utils import cached_file, extract_commit_hash

from .errors import ConversionError
from .tensor_files import TensorInfo, list_tensors, open_tensors

# in order of preference: safetensors where both are there
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")


@dataclass(frozen=True)
class Checkpoint:
    """What is known before any weight is read.

    Args:
        source: folder or repository, as given.
        config: config.json.
        tensors: all tensors by their authors' names.
        readme: text of README.md, empty where there is none.
        commit: the Hub commit, where it comes from there.
    """

    source: str
    config: dict[str, Any]
    tensors: dict[str, TensorInfo]
    readme: str = ""
    commit: str | None = None

    @property
    def files(self) -> list[Path]:
        """The weights' files, in order."""
        return sorted({info.file for info in self.tensors.values()})

    @contextmanager
    def reader(self, name: str) -> Iterator[torch.Tensor]:
        """One tensor, valid inside."""
        with open_tensors(self.tensors[name].file) as read:
            yield read(name)

    def read(self, name: str) -> torch.Tensor:
        """A copy of one (small) tensor."""
        with self.reader(name) as tensor:
            return tensor.clone()


def open_checkpoint(
    source: str | Path, check_config: Callable[[str, dict[str, Any]], None], **hub_options: Any
) -> Checkpoint:
    """Fetch and list a checkpoint.

    Args:
        source: a local folder or a Hub repository.
        check_config: raises on a config that cannot be a drafter's, before any weight is downloaded.
        hub_options: `token`, `revision`, `cache_dir`, `local_files_only`, ...; they reach every file.

    Raises:
        ConversionError: no config.json, no weights, a broken file, or a repository that cannot be reached, does not
            exist or is not open to you.
    """
    source = str(source)
    if Path(source).is_file():
        raise ConversionError(f"{source} is a file: give the folder that has config.json and the weights")

    def fetch(name: str, is_optional: bool = True) -> Path | None:
        found = cached_file(
            source,
            name,
            **hub_options,
            _raise_exceptions_for_missing_entries=not is_optional,
            _raise_exceptions_for_connection_errors=not is_optional,
        )
        return None if found is None else Path(found)

    try:
        config_file = fetch("config.json", is_optional=False)
    except (OSError, ValueError) as error:  # a ValueError for what can be no repository's name
        raise ConversionError(f"{source} is no folder, and no repository that can be fetched: {error}") from error
    if config_file is None:
        raise ConversionError(f"{source} has no config.json: it says what the weights are; get it from the authors")
    config = _read_json(config_file)
    check_config(source, config)
    readme = fetch("README.md")
    return Checkpoint(
        source=source,
        config=config,
        tensors=_list_all(source, fetch),
        readme="" if readme is None else readme.read_text(encoding="utf-8", errors="replace"),
        commit=extract_commit_hash(str(config_file), None),
    )


def _list_all(source: str, fetch: Callable[[str], Path | None]) -> dict[str, TensorInfo]:
    for name in _WEIGHTS:
        file = fetch(name)
        if file is not None:
            return _list_sharded(source, file, fetch) if file.suffix == ".json" else list_tensors(file)
    raise ConversionError(f"{source} has no weights: looked for {', '.join(_WEIGHTS)}")


def _list_sharded(source: str, index: Path, fetch: Callable[[str], Path | None]) -> dict[str, TensorInfo]:
    promised = _read_json(index).get("weight_map", {})
    tensors: dict[str, TensorInfo] = {}
    for shard in sorted(set(promised.values())):
        file = fetch(shard)
        if file is None:
            raise ConversionError(f"{source}: {index.name} names {shard}, which is not there: download it again")
        tensors.update(list_tensors(file))
    if tensors.keys() != promised.keys():
        differing = sorted(tensors.keys() ^ promised.keys())
        raise ConversionError(f"{source}: {index.name} and its shards disagree about {', '.join(differing)}")
    return tensors


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConversionError(f"{file} is no valid JSON: download it again. ({error})") from error
    if not isinstance(content, dict):
        raise ConversionError(f"{file} holds no JSON object: download it again")
    return content
