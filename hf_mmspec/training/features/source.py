"""All records that a drafter can learn from, by number: hidden states from disk, or read from the target on the fly.

Both give the same records. Screens once, counts what cannot be used, and knows nothing about learning.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import datasets
import numpy as np
import pyarrow.compute as pc
import torch

from hf_mmspec.data import PictureError
from hf_mmspec.generation.visual_spans import visual_token_ids
from hf_mmspec.modeling.binding import unwrap
from hf_mmspec.quantise import quantisation_of

from ..answers.rows import from_row
from ..answers.store import AnswerSet
from .reading import Answered, Reader
from .record import Record
from .stored import StatesFormat, from_columns

Where = Literal["auto", "stored", "live"]


class NoRecordsError(ValueError):
    """Nothing can be learned from this data; the message says why, with counts."""


@dataclass(frozen=True)
class RecordSource:
    """Records of one or several answer sets.

    Args:
        sets: all of the same target.
        reader: the target as this drafter reads it.
        is_stored: whether hidden states come from disk.
        numbers: rows that can be used, by their number in all sets together.
        max_length: records are cut behind so many tokens.
        dropped: rows that cannot be used, by reason.
    """

    sets: Sequence[AnswerSet]
    reader: Reader
    is_stored: bool
    numbers: Sequence[int]
    max_length: int
    dropped: Counter[str]

    @classmethod
    def open(
        cls, sets: Sequence[AnswerSet], reader: Reader, where: Where = "auto", max_length: int | None = None
    ) -> "RecordSource":
        """Screen the answers.

        Raises:
            NoRecordsError: none can be used, or hidden states are asked for that are not stored.
        """
        is_stored = where != "live" and _states_fit(sets, reader, where == "stored")
        longest = max_length or 10**9
        numbers, dropped = _screened(sets, reader, longest)
        return cls(sets, reader, is_stored, numbers, longest, dropped)

    def __len__(self) -> int:
        return len(self.numbers)

    @cached_property
    def rows(self) -> datasets.Dataset:
        """All rows, memory-mapped; hidden states only where they are used."""
        names = set(self.sets[0].rows.column_names)
        if not self.is_stored:
            names -= {"features", "states", "image_embeds", "spans"}
        elif self._takes_head_states:
            names -= {"features"}
        return datasets.concatenate_datasets([each.rows.select_columns(sorted(names)) for each in self.sets])

    def column(self, name: str) -> list[Any]:
        """One column of all usable rows."""
        return self.rows.select(self.numbers)[name][:]

    def prompts(self) -> list[str]:
        """What the prompt of each usable row is called, in all sets alike. A key that begins with a row's number says
        something within its own data alone; an embedded prompt's is the same wherever it was answered. Data are told
        apart by their place, as their names may be folders, which move."""
        names = [str(each.manifest.get("data", number)) for number, each in enumerate(self.sets)]
        places = {name: place for place, name in enumerate(dict.fromkeys(names))}
        place_of = [places[name] for name, each in zip(names, self.sets, strict=True) for _ in range(len(each.rows))]
        keys = zip(self.numbers, self.column("key"), strict=True)
        return [f"{place_of[at]}/{key}" if key[:1].isdigit() and place_of[at] else key for at, key in keys]

    def insist_on_pictures(self) -> None:
        """Look for the files of all usable rows' pictures; none is opened.

        Raises:
            PictureError: some are gone.
        """
        usable = set(self.numbers)
        files = {file for number, file in picture_files([each.rows for each in self.sets]) if number in usable}
        gone = sorted(file for file in files if not os.path.isfile(file))
        if gone:
            raise PictureError(
                f"{len(gone)} of {len(files)} pictures are gone, such as {gone[0]}. They were there when the prompts "
                "about them were answered: put them back, or distil without them"
            )

    def said(self) -> Iterator[torch.Tensor]:
        """The answers of all usable rows, `int64`."""
        for ids, prompt_length in token_rows([self.rows.select(self.numbers)]):
            yield torch.from_numpy(ids[prompt_length : self.max_length].astype(np.int64))

    def only(self, numbers: Sequence[int]) -> "RecordSource":
        """The same with some of the rows, `numbers` counting usable ones."""
        return replace(self, numbers=[self.numbers[i] for i in numbers])

    def that_say(self, knows: Callable[[torch.Tensor], torch.Tensor]) -> "RecordSource":
        """Without rows in whose answer the drafter can say nothing (`TargetParts.knows`): a batch of such would have
        no loss.

        Raises:
            NoRecordsError: none is left.
        """
        kept = [number for number, said in enumerate(self.said()) if knows(said[1:]).any()]
        if not kept:
            raise NoRecordsError("no answer has a token of the draft vocabulary: raise drafter.draft_vocab_size")
        more = Counter({"no token of the draft vocabulary in the answer": len(self) - len(kept)})
        return replace(self.only(kept), dropped=self.dropped + more)

    def answered(self, indices: Sequence[int]) -> list[Answered]:
        """What was asked and answered."""
        return [from_row(self.rows[self.numbers[index]]) for index in indices]

    def records(self, indices: Sequence[int]) -> list[Record]:
        """Usable records by number, pictures included, cut behind `max_length` tokens. Those from disk are on the CPU,
        those that are read on the fly on the target's device."""
        if self.is_stored:
            found = [self._stored(self.rows[self.numbers[index]]) for index in indices]
        else:
            found = self.reader.read(self.answered(indices))
        return [record.cut_to(self.max_length) for record in found]

    def sizes(self) -> list[tuple[int, int]]:
        """Tokens of each usable row, and how many of them are visual."""
        visual, rows = _visual_ids(self.reader), token_rows([self.rows.select(self.numbers)])
        return [(min(len(ids), self.max_length), int(np.isin(ids, visual).sum())) for ids, _ in rows]

    @property
    def bytes_per_token(self) -> int:
        """Of hidden states that are read from disk; 0 on the fly."""
        return self._format.bytes_per_token if self.is_stored else 0

    @property
    def _takes_head_states(self) -> bool:
        """Whether the drafter reads no more than the head, but the set keeps further layers: one set serves all."""
        return self.reader.feature_layers is None and self.sets[0].manifest["features"]["layers"] is not None

    @property
    def _format(self) -> StatesFormat:
        """Of the states that are read."""
        return StatesFormat(**{**self.sets[0].manifest["features"], "layers": _layers(self.reader)})

    def _stored(self, row: Mapping[str, Any]) -> Record:
        if self._takes_head_states:
            row = {**row, "features": row["states"], "states": None}
        return from_columns(row, self._format)


def _states_fit(sets: Sequence[AnswerSet], reader: Reader, insist: bool) -> bool:
    """Whether what the drafter reads is on disk.

    Raises:
        NoRecordsError: it is not, and the caller insists.
    """
    kept: dict[str, Any] | None = sets[0].manifest.get("features")
    same = all(each.manifest.get("features") == kept for each in sets)
    # any set with states keeps those that the head reads, too
    read_alike = kept is not None and same and _layers(reader) in (None, kept["layers"])
    weights = [each.manifest.get("target_quantization") for each in sets]
    own = quantisation_of(reader.model)
    if reader.kv_layer is not None:
        why = "keys and values of a target layer (kv_loss_target) are not stored: read on the fly"
    elif not read_alike:
        why = (
            f"the answers do not keep the hidden states that this drafter reads (layers {_layers(reader)}): distil "
            "with --features, or read them on the fly"
        )
    elif any(each != own for each in weights):
        why = (
            f"the hidden states in there are those of the target with its weights as {_named(weights)}, not "
            f"{own or 'unquantised'}: distil with this one, or read them on the fly"
        )
    else:
        return True
    if insist:
        raise NoRecordsError(f"{why} (--features live)")
    return False


def _screened(sets: Sequence[AnswerSet], reader: Reader, longest: int) -> tuple[list[int], Counter[str]]:
    """Numbers of the rows that can be learned from, and the others by reason.

    Raises:
        NoRecordsError: none can.
    """
    visual = _visual_ids(reader)
    numbers, dropped = [], Counter[str]()
    for number, (ids, prompt_length) in enumerate(token_rows([each.rows for each in sets])):
        reason = _why_not(ids, prompt_length, visual, longest)
        if reason is None:
            numbers.append(number)
        else:
            dropped[reason] += 1
    if not numbers:
        counts = ", ".join(f"{count} x {reason}" for reason, count in dropped.items())
        fix = "raise --max-length" if any("length limit" in reason for reason in dropped) else "distil more"
        raise NoRecordsError(f"none of {dropped.total()} answers can be learned from ({counts}): {fix}")
    return numbers, dropped


def token_rows(parts: Sequence[datasets.Dataset]) -> Iterator[tuple[np.ndarray, int]]:
    """Ids and prompt length of each row, one after the other: lists of Python numbers would not fit into memory."""
    for part in parts:
        for row in part.select_columns(["input_ids", "prompt_length"]).with_format("numpy"):
            yield row["input_ids"], int(row["prompt_length"])


def picture_files(parts: Sequence[datasets.Dataset]) -> Iterator[tuple[int, str]]:
    """Number of the row and path of each picture that is a file; those that are kept as bytes are not read."""
    first = 0
    for part in parts:
        images = part.data.column("images")
        pictures = pc.list_flatten(images)
        is_file = pc.is_null(pc.struct_field(pictures, "bytes"))
        owners = pc.list_parent_indices(images).filter(is_file).to_pylist()
        paths = pc.struct_field(pictures, "path").filter(is_file).to_pylist()
        yield from ((first + owner, path) for owner, path in zip(owners, paths, strict=True))
        first += len(part)


def _visual_ids(reader: Reader) -> np.ndarray:
    return np.array(sorted(visual_token_ids(unwrap(reader.model).config).values()))


def _why_not(ids: np.ndarray, prompt_length: int, visual: np.ndarray, max_length: int) -> str | None:
    """Why a row cannot be learned from when it is cut behind `max_length` tokens. Two answer tokens are the least: the
    first comes from the prefill."""
    if len(ids) - prompt_length < 2:
        return "no answer token to learn"
    if len(ids) > max_length:
        if np.isin(ids[max_length:], visual).any():
            return "a picture is cut by the length limit"
        if max_length - prompt_length < 2:
            return "the answer is cut by the length limit"
    return None


def _layers(reader: Reader) -> list[int] | None:
    return None if reader.feature_layers is None else list(reader.feature_layers)


def _named(quantisations: Sequence[str | None]) -> str:
    return ", ".join(dict.fromkeys(each or "unquantised" for each in quantisations))
