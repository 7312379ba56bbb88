"""A drafter's model card, made from data alone: the same files always give the same card.

Puts together what the other `card_*` modules find and say, and writes it with the picture of the numbers.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard

from hf_mmspec.whole_file import write_whole

from .card_bench import read_bench
from .card_facts import CardError, bench_files, read_facts
from .card_metadata import card_metadata
from .card_text import card_text, picture_name

__all__ = ["CardError", "make_card", "write_card"]


def make_card(
    folder: str | Path, reports: Sequence[Mapping[str, Any]] | None = None, name: str | None = None
) -> ModelCard:
    """The card of a drafter's folder; nothing is written.

    Args:
        folder: `config.json`, and as far as they are there weights, `training.json`, `conversion.json` and
            `bench.json`, `bench-2.json`, ...
        reports: of `mmspec bench`, instead of those in the folder.
        name: under which it is loaded, for example its repository; the folder's own by default.

    Raises:
        ValueError: a file is missing, damaged or another drafter's (`CardError`, `BenchFileError`).
    """
    facts = read_facts(Path(folder), reports, name)
    return ModelCard(f"---\n{card_metadata(facts).to_yaml()}\n---\n\n{card_text(facts)}")


def write_card(folder: str | Path, benches: Sequence[str | Path] = (), name: str | None = None) -> Path:
    """Write `README.md` of a drafter's folder, with the benches that it is made of and a picture of each.

    Args:
        folder, name: see `make_card`.
        benches: files of `mmspec bench --json`, which are copied to the folder; without any, those that are there.

    Returns:
        The card's path.

    Raises:
        ValueError: see `make_card`; nothing is written then.
    """
    folder = Path(folder)
    reports = [read_bench(Path(file)) for file in benches or bench_files(folder)]
    card = make_card(folder, reports, name)
    pictures = [_picture(report) for report in reports]
    written = set()
    for number, (report, picture) in enumerate(zip(reports, pictures, strict=True), 1):
        bench, shown = folder / bench_name(number), folder / picture_name(number)
        write_whole(bench, as_json(report))
        shown.write_bytes(picture)
        written |= {bench, shown}
    for stale in {*bench_files(folder), *folder.glob("speed*.png")} - written:  # none before the new ones are there
        stale.unlink()
    path = folder / "README.md"
    card.save(path)
    return path


def bench_name(number: int) -> str:
    """File of the bench with this number, from 1."""
    return "bench.json" if number == 1 else f"bench-{number}.json"


def as_json(report: Mapping[str, Any]) -> str:
    """As it is kept in the folder."""
    return json.dumps(report, indent=1, ensure_ascii=False) + "\n"


def fingerprint(report: Mapping[str, Any]) -> str:
    """Of the numbers that a picture was drawn from; the picture carries it."""
    return hashlib.sha256(as_json(report).encode()).hexdigest()


def _picture(report: Mapping[str, Any]) -> bytes:
    from hf_mmspec.evaluation.plots import speed_picture  # matplotlib, which only pictures need

    return speed_picture(report, {"Source": f"bench {fingerprint(report)}"})
