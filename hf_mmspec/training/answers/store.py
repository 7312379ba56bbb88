"""Answers on disk: a `datasets` data set that grows shard by shard, and survives being killed at any moment.

Knows rows and files; neither models nor how answers are made.
"""

import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
from datasets.arrow_writer import ArrowWriter

from hf_mmspec.whole_file import write_json

from ..disk import full_disk_explained, insist_on_room

MANIFEST = "distil.json"
_FORMAT = 1
_MARKS = "data-*.json"  # one for each finished shard
_LEFTOVERS = ".*partial*"  # of a run that was killed while it wrote
_PART = datasets.Features({"type": datasets.Value("string"), "text": datasets.Value("string")})
FEATURES = datasets.Features(
    {
        "input_ids": datasets.List(datasets.Value("int32")),
        "prompt_length": datasets.Value("int32"),
        "messages": datasets.List({"role": datasets.Value("string"), "content": datasets.List(_PART)}),
        "images": datasets.List(datasets.Image(decode=False)),
        "task": datasets.Value("string"),
        "key": datasets.Value("string"),
        "temperature": datasets.Value("float32"),
    }
)
# what `hf_mmspec.training.features.stored` adds where hidden states are kept
STATES = datasets.Features(
    {
        **{name: datasets.Value("large_binary") for name in ("features", "states", "image_embeds")},
        "spans": datasets.List(datasets.List(datasets.Value("int32"))),
    }
)


class AnswerStoreError(ValueError):
    """The folder cannot be used as it is; the message names cause and fix."""


@dataclass(frozen=True)
class AnswerStore:
    """A folder with a manifest, and for each shard `data-00012.arrow` and `data-00012.json`, which is written last.

    Args:
        folder: where.
        manifest: what made it: a second run goes on only with the same.
    """

    folder: Path
    manifest: Mapping[str, Any]

    @classmethod
    def open(cls, folder: Path, manifest: Mapping[str, Any]) -> "AnswerStore":
        """Begin, or go on. A run that failed before its first shard binds nobody to its options.

        Raises:
            AnswerStoreError: the folder holds something else, or answers that were made otherwise.
        """
        file, whole = folder / MANIFEST, {"format": _FORMAT, **manifest}
        insist_on_place(folder)
        found = read_manifest(folder) if file.exists() else {}
        other = sorted(key for key in {*found, *whole} if found.get(key) != whole.get(key))
        if other and any(folder.glob(_MARKS)):
            raise AnswerStoreError(
                f"{folder} holds answers that were made otherwise ({', '.join(other)} differ): give another "
                "folder, or the options of the first run (they are in distil.json)"
            )
        if other:
            write_json(file, whole)
        return cls(folder, whole)

    @property
    def schema(self) -> datasets.Features:
        """Columns of a row; hidden states only where they are asked for."""
        return datasets.Features({**FEATURES, **(STATES if self.manifest.get("features") else {})})

    def has(self, number: int) -> bool:
        """Whether a shard is there and whole. One that is damaged counts as missing, and is made anew."""
        if not self._mark(number).exists():
            return False
        try:
            read_shard(self._data(number))
        except AnswerStoreError:
            return False
        return True

    def write(self, number: int, rows: Sequence[Mapping[str, Any]], skipped: Counter[str]) -> None:
        """Write a shard; it counts from the moment its mark is there.

        Raises:
            OSError: the disk is full; nothing of the shard counts, and what was there stays.
        """
        insist_on_room(self.folder, sum(row_bytes(row) for row in rows))
        columns = {name: [row[name] for row in rows] for name in self.schema}
        with full_disk_explained(self.folder):
            with tempfile.TemporaryDirectory(dir=self.folder, prefix=".partial-") as scratch:
                partial = Path(scratch) / "data.arrow"  # `save_to_disk` would put in every picture a second time
                with ArrowWriter(path=str(partial), features=self.schema) as writer:
                    writer.write_table(datasets.Dataset.from_dict(columns, features=self.schema).data.table)
                os.replace(partial, self._data(number))
            write_json(self._mark(number), {"rows": len(rows), "skipped": dict(skipped)})

    def clear_leftovers(self) -> None:
        """Remove what a killed run was writing; only while nobody writes."""
        for leftover in self.folder.glob(_LEFTOVERS):
            if leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)

    def skipped(self) -> Counter[str]:
        """How many samples were left out so far, by reason."""
        total: Counter[str] = Counter()
        for mark in self._marks():
            total.update(mark["skipped"])
        return total

    def answered(self) -> int:
        """How many answers are there so far."""
        return sum(mark["rows"] for mark in self._marks())

    def finish(self) -> None:
        """Make the folder one that `datasets.load_from_disk` opens: nothing is copied."""
        marks = sorted(self.folder.glob(_MARKS))
        with tempfile.TemporaryDirectory(dir=self.folder, prefix=".partial-") as scratch:
            empty = datasets.Dataset.from_dict({name: [] for name in self.schema}, features=self.schema)
            empty.save_to_disk(scratch)
            state = json.loads((Path(scratch) / "state.json").read_text())
            state["_data_files"] = [{"filename": mark.with_suffix(".arrow").name} for mark in marks]
            state["_fingerprint"] = self.fingerprint
            os.replace(Path(scratch) / "dataset_info.json", self.folder / "dataset_info.json")
        write_json(self.folder / "state.json", state)

    @property
    def fingerprint(self) -> str:
        """Of what made the answers and of which are there."""
        marks = [f"{mark.name}:{mark.read_text()}" for mark in sorted(self.folder.glob(_MARKS))]
        return datasets.fingerprint.Hasher.hash([dict(self.manifest), marks])

    def _marks(self) -> Iterator[dict[str, Any]]:
        """What is known of the shards; a damaged mark is none."""
        for file in self.folder.glob(_MARKS):
            with suppress(OSError, ValueError):
                yield read_mark(file)

    def _data(self, number: int) -> Path:
        return self.folder / f"data-{number:05d}.arrow"

    def _mark(self, number: int) -> Path:
        return self.folder / f"data-{number:05d}.json"


@dataclass(frozen=True)
class AnswerSet:
    """Answers as they are read: `rows` (memory-mapped), what made them, and how to name them in a card."""

    folder: Path
    rows: datasets.Dataset
    manifest: Mapping[str, Any]

    @classmethod
    def load(cls, folder: Path) -> "AnswerSet":
        """All finished shards, also of a distillation that is still going on.

        Raises:
            AnswerStoreError: no answers in there, or a damaged shard (naming it).
        """
        if not (folder / MANIFEST).exists():
            raise AnswerStoreError(
                f"{folder}: no answers in there ({MANIFEST} is missing): make them by `mmspec distil`"
            )
        files = [mark.with_suffix(".arrow") for mark in sorted(folder.glob(_MARKS))]
        if not files:
            raise AnswerStoreError(f"{folder}: no answer is finished yet; run `mmspec distil` again")
        manifest = read_manifest(folder)
        if not {"model", "target_fingerprint"} <= set(manifest):
            raise AnswerStoreError(f"{folder / MANIFEST}: damaged (it does not say whose answers these are)")
        return cls(folder, datasets.concatenate_datasets([read_shard(file) for file in files]), manifest)

    @cached_property
    def fingerprint(self) -> str:
        """The same for the same answers."""
        return AnswerStore(self.folder, self.manifest).fingerprint


def read_shard(file: Path) -> datasets.Dataset:
    """One shard, memory-mapped.

    Raises:
        AnswerStoreError: it is damaged or missing.
    """
    try:
        shard = datasets.Dataset.from_file(str(file))
        expected = read_mark(file.with_suffix(".json"))["rows"]
    except (OSError, pa.ArrowException, ValueError) as error:
        raise AnswerStoreError(
            f"{file}: damaged ({type(error).__name__}: {error}). Run the same `mmspec distil` again: only what is "
            "damaged is made anew"
        ) from error
    if len(shard) != expected:
        raise AnswerStoreError(
            f"{file}: holds {len(shard)} rows instead of {expected}. Run the same `mmspec distil` again: only what is "
            "damaged is made anew"
        )
    return shard


def insist_on_place(folder: Path) -> None:
    """Raises AnswerStoreError where `folder` is neither new, empty, nor one of answers."""
    if (folder / MANIFEST).exists():
        read_manifest(folder)
    elif folder.exists() and (not folder.is_dir() or set(folder.iterdir()) - set(folder.glob(_LEFTOVERS))):
        raise AnswerStoreError(f"{folder} is not empty and holds no answers: give a new folder")


def read_mark(file: Path) -> dict[str, Any]:
    """`rows` and `skipped` of a shard.

    Raises:
        ValueError: the file is damaged.
    """
    found = json.loads(file.read_text())
    if not isinstance(found, dict) or not {"rows", "skipped"} <= set(found):
        raise ValueError(f"{file.name} does not say how many rows there are")
    return found


def read_manifest(folder: Path) -> dict[str, Any]:
    """What made the answers.

    Raises:
        AnswerStoreError: the file is damaged or of a newer version.
    """
    try:
        found = json.loads((folder / MANIFEST).read_text())
    except ValueError as error:
        raise AnswerStoreError(
            f"{folder / MANIFEST}: damaged ({error}); restore it or distil into a new folder"
        ) from error
    if not isinstance(found, dict) or found.get("format") != _FORMAT:
        raise AnswerStoreError(
            f"{folder / MANIFEST}: written by another version of hf_mmspec; upgrade, or distil anew"
        )
    return found


def row_bytes(row: Mapping[str, Any]) -> int:
    """About the size of a row on disk."""
    states = sum(len(row[name]) for name in STATES if row.get(name) is not None)
    pictures = sum(len(each.get("bytes") or b"") for each in row["images"])
    return 4 * len(row["input_ids"]) + states + pictures + 1000
