"""Answers of the embedded default that are kept as token ids alone, a few MB: prompts come back from their seeds.

JSON lines: `task`, `split`, `seed`, `temperature` and `ids` each.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, overload

from hf_mmspec.data import Conversation, DataError
from hf_mmspec.data.embedded import conversation


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
        return replace(conversation(row["split"], row["task"], "", row["seed"]), answer_ids=row["ids"])

    def fingerprint(self) -> str:
        """Of the answers."""
        from datasets.fingerprint import Hasher

        return Hasher.hash(self._rows)


def known_row(answer: dict[str, Any]) -> dict[str, Any]:
    """A row of `store.FEATURES` about an embedded prompt as a line of such a file."""
    task, split, seed = answer["key"].split("/")
    ids = answer["input_ids"][answer["prompt_length"] :]
    return {"task": task, "split": split, "seed": int(seed), "temperature": answer["temperature"], "ids": ids}
