"""Where conversations come from: one call opens any source, and every source is a sequence of conversations.

Knows no file format (`tables.py`) and no model.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any, overload

from .columns import Columns, find_columns, holds_paths
from .conversation import Conversation
from .errors import DataError, UnusableSample
from .public_sets import PUBLIC_SETS
from .rows import RowReader


@dataclass(frozen=True)
class Source:
    """What is to be opened.

    Args:
        data: a Hub id, a folder, a table file; the name of a public set (`public_sets.py`), as it is for the Hub's or
            NAME=PATH for a local copy; or "embedded" (all its tasks in turn), "embedded:scene", "embedded:chart",
            "embedded:dialog", "embedded:text", "embedded:pictures-2" (prompts about two pictures each).
        split: of the data set; of the embedded generators train, val or test. None is the only one there is, else
            the usual one, which is "train" but for public sets to measure on.
        subset: a Hub data set's configuration.
        columns: which column is what; guessed where it is None and safe.
        append: put behind the last user message, such as ViSpec's "Please answer with at least 1000 words."
        limit: no more rows than these; None is all. The embedded tasks with pictures never end, so they need it.
        skip: rows that are left out before.
        revision, token, cache_dir: as `datasets.load_dataset` takes them.
        pictures: the folder that picture paths in the table are relative to; None is the table's own folder.
    """

    data: str
    split: str | None = None
    subset: str | None = None
    columns: Columns = field(default_factory=Columns)
    append: str = ""
    limit: int | None = None
    skip: int = 0
    revision: str | None = None
    token: str | None = None
    cache_dir: str | None = None
    pictures: str | None = None


class Conversations(Sequence[Conversation]):
    """Conversations that are read one by one when they are asked for.

    `self[i]` raises `UnusableSample` for one that cannot be used, so iteration ends there; `usable` goes on.
    """

    def __init__(self, numbers: range, read: Callable[[int], Conversation], fingerprint: str):
        self._numbers, self._read, self._fingerprint = numbers, read, fingerprint

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, index: int) -> Conversation: ...
    @overload
    def __getitem__(self, index: slice) -> Conversations: ...
    def __getitem__(self, index):
        if isinstance(index, slice):
            return Conversations(self._numbers[index], self._read, self._fingerprint)
        return self._read(self._numbers[index])

    def usable(self, skipped: Counter[str] | None = None) -> Iterator[Conversation]:
        """Those that can be used; the others are counted in `skipped` by reason."""
        for number in self._numbers:
            try:
                yield self._read(number)
            except UnusableSample as error:
                if skipped is not None:
                    skipped[error.reason] += 1

    def fingerprint(self) -> str:
        """Differs where the rows, their range or the way they are read differ; the files of pictures are not read."""
        return _hash(self._fingerprint, self._numbers)


def refuse_idle_options(data: Sequence[str], options: Source) -> None:
    """Raises DataError where something is said about columns, a subset or a folder of pictures and all data are
    generated, so that nobody measures them by a forgotten --data."""
    generated = all(each.partition(":")[0] == "embedded" for each in data)
    if generated and (options.columns.named or options.subset or options.revision or options.pictures):
        raise DataError(
            f"{', '.join(data)} is generated: columns, subsets, revisions and folders of pictures are of other data"
        )


def open_source(source: Source) -> Conversations:
    """Opens a source; nothing is read yet but what it says about itself.

    Raises:
        DataError: it is not there, cannot be read or is empty, has no such split, or its columns cannot be guessed.
    """
    if source.skip < 0 or (source.limit is not None and source.limit < 1):
        raise DataError("limit must be at least 1 and skip at least 0")
    name, _, task = source.data.partition(":")
    if name == "embedded":
        return _open_embedded(source, task or None)
    name, _, path = source.data.partition("=")
    return _open_public(source, name, path) if name in PUBLIC_SETS else _open_table(source)


def _open_table(source: Source) -> Conversations:
    from .tables import open_table  # `datasets` takes a second to import

    table = open_table(_place(source))
    columns = find_columns(source.columns, table.rows.features, source.data)
    reader = RowReader(columns, table.pictures, _labels(columns, table.rows), source.append)
    return _conversations(source, table.rows.select_columns(sorted(set(columns.named.values()))), reader)


def _open_public(source: Source, name: str, path: str) -> Conversations:
    from .public_tables import open_public_table

    if source.columns.named:
        raise DataError(f"the columns of {name} are known; to choose others, name the data without {name!r}")
    known = PUBLIC_SETS[name]
    rows, pictures = open_public_table(known, name, path, _place(source))
    labels = _labels(known.columns, rows)
    reader = RowReader(known.columns, pictures, labels, source.append or known.append, name, known.chat)
    return _conversations(replace(source, limit=source.limit or known.limit), rows, reader)


def _place(source: Source) -> Any:
    from .tables import Place

    shared = {field.name for field in fields(Place)} & {field.name for field in fields(Source)}
    return Place(**{name: getattr(source, name) for name in shared})


def _labels(columns: Columns, rows: Any) -> tuple[str, ...]:
    return tuple(getattr(rows.features[columns.task], "names", ())) if columns.task else ()


def _conversations(source: Source, rows: Any, reader: RowReader) -> Conversations:
    image = reader.columns.image
    if image and reader.pictures.folder is None and holds_paths(rows.features[image]):
        raise DataError(f"{source.data}: column {image!r} holds paths: say with --pictures which folder they are in")
    fingerprint = _hash(rows._fingerprint, reader.columns, reader.append, reader.task)
    return Conversations(_range(source, len(rows)), partial(_read_row, rows, reader), fingerprint)


def _read_row(rows: Any, reader: RowReader, number: int) -> Conversation:
    return reader.read(rows[number], number)


def _open_embedded(source: Source, task: str | None) -> Conversations:
    from . import embedded  # which imports the demo, and that may import this package

    split = source.split or "train"
    size = embedded.size(task, split)
    if size is None and source.limit is None:
        raise DataError(f"{source.data} never ends: say how many with --limit")
    read = partial(embedded.conversation, split, task, source.append)
    return Conversations(_range(source, size), read, _hash(source.data, split, source.append))


def _range(source: Source, size: int | None) -> range:
    """Which rows; `size` None is without end."""
    ends = [end for end in (size, source.skip + source.limit if source.limit else None) if end is not None]
    numbers = range(source.skip, min(ends))
    if not numbers:
        raise DataError(f"{source.data}: no rows" + (f" behind the first {source.skip}" if source.skip else ""))
    return numbers


def _hash(*parts: Any) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
