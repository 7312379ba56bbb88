"""Answers of the embedded default that are kept as token ids alone, a few MB: prompts come back from their seeds.

JSON lines: `task`, `split`, `seed`, `temperature` and `ids` each.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, overload

from hf_mmspec.data import Conversation, DataError
from hf_mmspec.data.embedded import conversation
from hf_mmspec.whole_file import write_whole


class KnownAnswers(Sequence[Conversation]):
    """The conversations of such a file, answered already."""

    def __init__(self, file: Path):
        try:
            self._rows = [json.loads(line) for line in file.read_text().splitlines()]
            self._rows = [
                {**row, "task": row["task"], "split": row["split"], "ids": list(row["ids"]), "seed": int(row["seed"])}
                for row in self._rows
            ]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{file}: no file of answers ({type(error).__name__}: {error})") from error
        if not self._rows:
            raise DataError(f"{file}: no answer in there")

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Conversation: ...
    @overload
    def __getitem__(self, index: slice) -> list[Conversation]: ...
    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        row = self._rows[index]
        return replace(
            conversation(row["split"], row["task"], "", row["seed"]),
            answer_ids=row["ids"],
            answer_temperature=row.get("temperature"),
        )

    def fingerprint(self) -> str:
        """Of the answers."""
        from datasets.fingerprint import Hasher

        return Hasher.hash(self._rows)


WRITTEN = ["key", "input_ids", "prompt_length", "temperature"]  # the columns that are asked for


def write_known(file: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write such a file from rows with the columns `WRITTEN` about embedded prompts; it is whole or not there."""
    write_whole(file, "".join(json.dumps(_known(row), separators=(",", ":")) + "\n" for row in rows))


def _known(row: dict[str, Any]) -> dict[str, Any]:
    task, split, seed = row["key"].split("/")
    known = {"task": task, "split": split, "seed": int(seed), "temperature": round(row["temperature"], 4)}
    return {**known, "ids": row["input_ids"][row["prompt_length"] :]}
