"""Opens what `--data` names with `datasets`: a table file, a folder with one, a saved data set, or one of the Hub.

Knows no columns: rows come as they are, with pictures as bytes and paths.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import datasets
from datasets import Dataset, DatasetDict
from huggingface_hub.constants import HF_HUB_CACHE

from .errors import DataError
from .picture_root import PictureRoot

FORMATS: Mapping[str, tuple[str, dict[str, Any]]] = {
    ".jsonl": ("json", {}),
    ".ndjson": ("json", {}),
    ".json": ("json", {}),
    ".csv": ("csv", {"keep_default_na": False}),  # "NA" and "None" are words
    ".tsv": ("csv", {"keep_default_na": False, "sep": "\t"}),
    ".parquet": ("parquet", {}),
}
"""Suffix of a table -> its loader in `datasets`, and how that is to read it."""
_SAVED = ("state.json", "dataset_dict.json")  # what `save_to_disk` leaves


@dataclass(frozen=True)
class Place:
    """Where a table is, as `datasets.load_dataset` takes it.

    Args:
        data: a table file, a folder, or the id of a data set of the Hub.
        split: None is the only one there is, else `usual_split`.
        file: the table's name within `data`, where it has several.
        pictures: the folder that picture paths are relative to; None is the table's own.
    """

    data: str
    split: str | None = None
    subset: str | None = None
    revision: str | None = None
    token: str | None = None
    cache_dir: str | None = None
    pictures: str | None = None
    file: str | None = None
    usual_split: str = "train"

    @property
    def path(self) -> Path:
        path = Path(self.data).expanduser()
        return path / self.file if self.file and (path / self.file).is_file() else path


@dataclass(frozen=True)
class Table:
    """Rows as they are stored, and where their pictures lie."""

    rows: Dataset
    pictures: PictureRoot


def open_table(place: Place) -> Table:
    """Opens the table of a place.

    Raises:
        DataError: no such data, no table in it, several, no such split, or it cannot be read.
    """
    pictures = Path(place.pictures).expanduser() if place.pictures else None
    if pictures is not None and not pictures.is_dir():
        raise DataError(f"{pictures}: no such folder of pictures")
    if place.path.is_file():
        if place.subset:
            raise DataError(f"{place.data} is a table, which has no configurations: leave --subset out")
        rows = _load_files(place, {"train": [place.path]})
        return Table(rows, PictureRoot(pictures or place.path.parent, own=True))
    if place.path.is_dir():
        return _open_folder(place, pictures)
    if place.path.suffix in FORMATS or place.data.count("/") > 1 or place.data.startswith((".", "/", "~")):
        raise DataError(f"{place.data}: no such file or folder")
    options = {"revision": place.revision, "token": place.token, "data_files": place.file}
    rows = _load(place, place.data, {key: value for key, value in options.items() if value is not None})
    return Table(rows, PictureRoot(pictures, caches=_caches(place)))


def _open_folder(place: Place, pictures: Path | None) -> Table:
    if any((place.path / name).exists() for name in _SAVED):
        return Table(_load_saved(place), PictureRoot(pictures or place.path, own=True))
    tables = {} if place.subset else _tables(place)
    if tables:
        parent = next(iter(tables.values()))[0].parent
        return Table(_load_files(place, tables), PictureRoot(pictures or parent, own=True))
    if not any(file.suffix.lower() in FORMATS for file in place.path.rglob("*")):
        raise DataError(
            f"{place.data}: no table in this folder; add one, such as a prompts.jsonl with a line "
            '{"image": "1.jpg", "prompt": "What is this?"} for each prompt'
        )
    return Table(_load(place, str(place.path), {}), PictureRoot(pictures or place.path, own=True))


def _tables(place: Place) -> dict[str, list[Path]]:
    """The wanted split -> its files, those named after it; a table alone is "train", whatever its name."""
    files = _table_files(place.path)
    if len(files) < 2:
        return {"train": files} if files else {}
    splits: dict[str, list[Path]] = {}
    for file in files:
        name = re.split(r"-\d{5}-of-", file.stem)[0] if file.parent == place.path else file.parent.name
        splits.setdefault(name, []).append(file)
    wanted = re.split(r"[\[+]", place.split or _usual(place, splits))[0]
    if wanted not in splits:
        names = ", ".join(str(file.relative_to(place.path)) for file in files)
        raise DataError(f"{place.data}: none of {names} is called {wanted}: name the file, or a split that is there")
    return {wanted: splits[wanted]}


def _table_files(folder: Path) -> list[Path]:
    """Tables in a folder itself, and `metadata.*` as `datasets.ImageFolder` has it in a folder for each split."""
    files = [*folder.iterdir(), *folder.glob("*/metadata.*")]
    return sorted({file for file in files if file.is_file() and file.suffix.lower() in FORMATS})


def _load_files(place: Place, files: Mapping[str, list[Path]]) -> Dataset:
    suffixes = {file.suffix.lower() for each in files.values() for file in each}
    if len(suffixes) > 1 or not suffixes <= set(FORMATS):
        raise DataError(
            f"{place.data}: {' and '.join(sorted(suffixes)) or 'a file without suffix'} cannot be read as one table; "
            f"a table is one of {', '.join(FORMATS)}"
        )
    builder, options = FORMATS[suffixes.pop()]
    if builder == "json":
        # One chunk, since `datasets` takes types from the first one: lists that come later would turn into text.
        options = {"chunksize": 1 + max(file.stat().st_size for each in files.values() for file in each)}
    names = {name: [str(file) for file in each] for name, each in files.items()}
    split = place.split or next(iter(files))
    return _load(place, builder, {"data_files": names, "split": split, "name": None, **options})


def _load_saved(place: Place) -> Dataset:
    """What `save_to_disk` wrote: one data set, whatever the split, or a dict of splits."""
    try:
        saved = datasets.load_from_disk(str(place.path))
    except Exception as error:
        raise DataError(f"{place.data}: this saved data set cannot be read: {_in_one_line(error)}") from error
    return _undecoded(_split_of(place, saved))


def _split_of(place: Place, found: Dataset | DatasetDict) -> Dataset:
    """The split that is asked for, or the usual one."""
    if isinstance(found, Dataset):
        return found
    split = place.split or _usual(place, found)
    if split not in found:
        raise DataError(f"{place.data}: no split {split!r}; it has {', '.join(found)}: choose one with --split")
    return found[split]


def _usual(place: Place, splits: Collection[str]) -> str:
    """The split that is read where none is asked for: the only one there is."""
    return next(iter(splits)) if len(splits) == 1 else place.usual_split


def _load(place: Place, path: str, options: Mapping[str, Any]) -> Dataset:
    """`datasets.load_dataset`, whose many errors become one line each."""
    usual = {"name": place.subset, "split": place.split, "cache_dir": place.cache_dir}
    try:
        found = datasets.load_dataset(path, **{**usual, **options})  # without a split all, which costs no more
    except ConnectionError as error:
        raise DataError(
            f"{place.data}: no such file or folder here, and the Hub cannot be reached ({_in_one_line(error)}); "
            "check the name, or fetch it once while online"
        ) from error
    except Exception as error:  # the libraries below raise nearly anything on broken files
        raise DataError(f"{place.data}: {_in_one_line(error.__cause__ or error)}") from error
    return _undecoded(_split_of(place, found))


def _in_one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def _caches(place: Place) -> tuple[Path, ...]:
    """Where `datasets` itself puts the pictures of a Hub data set."""
    known = datasets.config
    folders = (place.cache_dir, known.HF_DATASETS_CACHE, known.DOWNLOADED_DATASETS_PATH, HF_HUB_CACHE)
    return tuple(Path(folder) for folder in folders if folder)


def _undecoded(rows: Dataset) -> Dataset:
    """The same rows, media as bytes and paths: nothing is opened when a row is read, and nothing is copied here."""
    info = rows.info.copy()
    info.features = datasets.Features({name: _raw(feature) for name, feature in rows.features.items()})
    return Dataset(rows.data, info, rows.split, rows._indices, rows._fingerprint)


def _raw(feature: Any) -> Any:
    if isinstance(feature, dict):
        return {name: _raw(each) for name, each in feature.items()}
    if isinstance(feature, datasets.List | datasets.LargeList):
        return replace(feature, feature=_raw(feature.feature))
    if isinstance(feature, datasets.Image | datasets.Audio | datasets.Video):
        return type(feature)(decode=False)
    return feature
