"""Opens a public set, from the Hub or from a local copy, and checks that it has the columns it is known for.

Knows the shape of none (`public_sets.py`).
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from datasets import Dataset

from .columns import check_columns
from .errors import DataError, UnusableSample
from .picture_root import PictureRoot
from .public_sets import PicturesApart, PublicSet
from .tables import Place, open_table


class RowsWithPictures:
    """Rows whose pictures are in another table, fetched by key when a row is read."""

    def __init__(self, rows: Dataset, pictures: Dataset, apart: PicturesApart):
        self._rows, self._pictures, self._apart = rows, pictures, apart
        self._number = {key: number for number, key in enumerate(pictures[apart.id])}
        self.features = {**rows.features, "image": pictures.features[apart.image]}
        self._fingerprint = f"{rows._fingerprint}/{pictures._fingerprint}"

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, number: int) -> Mapping[str, Any]:
        row = self._rows[number]
        key = row[self._apart.key]
        if key not in self._number:
            raise UnusableSample("picture missing", f"no picture with {self._apart.id} {key!r}")
        return {**row, "image": self._pictures[self._number[key]][self._apart.image]}


def open_public_table(known: PublicSet, name: str, path: str, place: Place) -> tuple[Any, PictureRoot]:
    """The rows of a public set, in its order, and where its pictures lie.

    Args:
        name: its name for users.
        path: a local copy; empty: the Hub's.
        place: what else the user asked for.

    Raises:
        DataError: it cannot be opened, or lacks columns that the set is known for.
    """
    place = _local(known, path, place) if path else _on_hub(known, name, place)
    table = open_table(place)
    missing = [column for column in known.columns_read if column not in table.rows.features]
    if missing:
        has = ", ".join(map(repr, table.rows.features))
        raise DataError(f"{place.data} is no {name}: it lacks {', '.join(map(repr, missing))}; it has {has}")
    rows = table.rows.select_columns(known.columns_read)
    if known.shuffled is not None:
        rows = rows.shuffle(seed=known.shuffled, keep_in_memory=True)
    if known.pictures_apart:
        pictures = open_table(replace(place, subset=known.pictures_apart.subset)).rows
        rows = RowsWithPictures(rows, pictures, known.pictures_apart)
    check_columns(known.columns, rows.features, place.data)
    return rows, table.pictures


def _on_hub(known: PublicSet, name: str, place: Place) -> Place:
    if known.hub is None:
        raise DataError(f"{name} is not on the Hub: say where it is with {name}=PATH")
    if known.file and known.columns.image and place.pictures is None:  # said before a gigabyte is fetched
        raise DataError(f"{known.hub} holds paths of pictures: say with --pictures which folder they are in")
    subset = place.subset or known.subset
    return replace(place, data=known.hub, subset=subset, file=known.file, usual_split=known.split)


def _local(known: PublicSet, path: str, place: Place) -> Place:
    """A copy of the Hub's folder has its README and with it the configurations; other copies are one table."""
    folder = Path(path).expanduser()
    subset = place.subset or (known.subset if (folder / "README.md").is_file() else None)
    own = (folder if folder.is_dir() else folder.parent) / known.pictures if known.pictures else None
    pictures = place.pictures or (str(own) if own and own.is_dir() else None)
    return replace(place, data=path, subset=subset, file=known.file, usual_split=known.split, pictures=pictures)
