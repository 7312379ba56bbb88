"""Opens what `--data` names with `datasets`: a table file, a folder with one, a saved data set, or one of the Hub.

Knows no columns: rows come as they are, pictures undecoded.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
from datasets import Dataset

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
_SAVED = ("state.json", "dataset_info.json", "dataset_dict.json")


@dataclass(frozen=True)
class Table:
    """Rows as they are stored, and where their pictures lie."""

    rows: Dataset
    pictures: PictureRoot
    name: str


def open_table(
    data: str,
    split: str = "train",
    subset: str | None = None,
    pictures: str | None = None,
    revision: str | None = None,
    token: str | None = None,
    cache_dir: str | None = None,
) -> Table:
    """The rows of `data`: a table file, a folder, or a data set of the Hub.

    Args:
        data, split, subset, revision, token, cache_dir: as `datasets.load_dataset` takes them.
        pictures: the folder that the table's picture paths are relative to; None: the table's own.

    Raises:
        DataError: no such data, no table in it, several, no such split, or it cannot be read.
    """
    path = Path(data).expanduser()
    if pictures is not None and not Path(pictures).expanduser().is_dir():
        raise DataError(f"{pictures}: no such folder of pictures")
    folder = Path(pictures).expanduser() if pictures else None
    if path.is_file():
        rows = _load_files(data, {"train": [path]}, split, cache_dir)
        return Table(rows, PictureRoot(folder or path.parent, own=True), data)
    if path.is_dir():
        return _open_folder(data, path, split, subset, folder, cache_dir)
    if path.suffix or data.count("/") > 1 or data.startswith((".", "/", "~")):
        raise DataError(f"{data}: no such file or folder")
    options = {"revision": revision, "token": token, "cache_dir": cache_dir}
    rows = _load(data, data, subset, split, {key: value for key, value in options.items() if value is not None})
    return Table(rows, PictureRoot(folder, caches=_caches(cache_dir)), data)


def _open_folder(
    data: str, path: Path, split: str, subset: str | None, pictures: Path | None, cache_dir: str | None
) -> Table:
    root = PictureRoot(pictures or path, own=True)
    if any((path / name).exists() for name in _SAVED):
        return Table(_load_saved(data, path, split), root, data)
    tables = _tables(data, path, split) if subset is None else {}
    if tables:
        rows = _load_files(data, tables, split, cache_dir)
        return Table(rows, PictureRoot(pictures or next(iter(tables.values()))[0].parent, own=True), data)
    if not any(file.suffix.lower() in FORMATS for file in path.rglob("*")):
        raise DataError(
            f"{data}: no table in this folder; add one, such as a prompts.jsonl with a line "
            '{"image": "1.jpg", "prompt": "What is this?"} for each prompt'
        )
    return Table(_load(data, str(path), subset, split, {"cache_dir": cache_dir}), root, data)


def _tables(data: str, folder: Path, split: str) -> dict[str, list[Path]]:
    """Split -> its files: those named after a split, else the only one, which is "train"; none: an empty dict."""
    files = sorted(file for file in folder.iterdir() if file.is_file() and file.suffix.lower() in FORMATS)
    files += sorted(file for file in folder.glob("*/metadata.*") if file.suffix.lower() in FORMATS)
    splits: dict[str, list[Path]] = {}
    for file in files:
        name = file.parent.name if file.parent != folder else re.split(r"-\d{5}-of-", file.stem)[0]
        splits.setdefault(name, []).append(file)
    if len(files) == 1:
        return {"train": files}
    wanted = re.split(r"[\[+]", split)[0]
    if not splits or wanted in splits:
        return {wanted: splits[wanted]} if splits else {}
    raise DataError(
        f"{data}: no table of the split {wanted!r} among {', '.join(f.name for f in files)}: "
        "name one of these files instead of the folder, or its split"
    )


def _load_files(data: str, files: Mapping[str, list[Path]], split: str, cache_dir: str | None) -> Dataset:
    suffixes = {file.suffix.lower() for each in files.values() for file in each}
    if len(suffixes) > 1 or not suffixes <= set(FORMATS):
        raise DataError(
            f"{data}: {' and '.join(sorted(suffixes))} cannot be read as one table; "
            f"a table is one of {', '.join(FORMATS)}"
        )
    builder, options = FORMATS[suffixes.pop()]
    names = {name: [str(file) for file in each] for name, each in files.items()}
    return _load(data, builder, None, split, {"data_files": names, "cache_dir": cache_dir, **options})


def _load_saved(data: str, path: Path, split: str) -> Dataset:
    """What `save_to_disk` wrote: one data set, whatever the split, or a dict of splits."""
    try:
        saved = datasets.load_from_disk(str(path))
    except Exception as error:
        raise DataError(f"{data}: this saved data set cannot be read: {_first_line(error)}") from error
    if isinstance(saved, Dataset):
        return _undecoded(saved)
    if split not in saved:
        raise DataError(f"{data}: no split {split!r}; it has {', '.join(saved)}")
    return _undecoded(saved[split])


def _load(data: str, path: str, subset: str | None, split: str, options: Mapping[str, Any]) -> Dataset:
    """`datasets.load_dataset`, whose many errors become one line each."""
    try:
        return _undecoded(datasets.load_dataset(path, subset, split=split, **options))
    except ConnectionError as error:
        raise DataError(
            f"{data}: no such file or folder here, and the Hub cannot be reached ({_first_line(error)}); "
            "check the name, or fetch it once while online"
        ) from error
    except Exception as error:  # the libraries below raise nearly anything on broken files
        raise DataError(f"{data}: {_first_line(error.__cause__ or error)}") from error


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0][:300] or type(error).__name__


def _caches(cache_dir: str | None) -> tuple[Path, ...]:
    """Where `datasets` itself puts the pictures of a Hub data set."""
    config = datasets.config
    return tuple(
        Path(each)
        for each in (cache_dir, config.HF_DATASETS_CACHE, config.DOWNLOADED_DATASETS_PATH, config.HF_HUB_CACHE)
        if each
    )


def _undecoded(rows: Dataset) -> Dataset:
    """The same rows, media as bytes and paths: nothing is opened when a row is read, and nothing is copied here."""
    features = datasets.Features({name: _without_decoding(feature) for name, feature in rows.features.items()})
    info = rows.info.copy()
    info.features = features
    return Dataset(rows.data, info, rows.split, rows._indices, rows._fingerprint)


def _without_decoding(feature: Any) -> Any:
    if isinstance(feature, dict):
        return {name: _without_decoding(each) for name, each in feature.items()}
    if isinstance(feature, list):
        return [_without_decoding(each) for each in feature]
    if isinstance(feature, datasets.List | datasets.LargeList):
        return (
            type(feature)(_without_decoding(feature.feature), length=feature.length)
            if isinstance(feature, datasets.List)
            else datasets.LargeList(_without_decoding(feature.feature))
        )
    if isinstance(feature, datasets.Image | datasets.Audio | datasets.Video):
        return type(feature)(decode=False)
    return feature
