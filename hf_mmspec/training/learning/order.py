"""In which order a stage sees its records: the whole stage is planned beforehand, from a seed.

So a resumed run needs to know only how far it was, and the batches of a step are the same in however many processes.
Knows lengths and whether there are pictures; no model.
"""

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..recipes.stage import RecipeError, Stage

_WINDOW = 50  # batches whose records are sorted by length, so that little is padding
_CURRICULUM_WINDOW = 4  # fewer, since the share of pictures changes on the way


@dataclass(frozen=True)
class Entry:
    """What planning needs of a record: its rows with and without pictures, and whether it has any."""

    rows: int
    text_rows: int

    @property
    def has_pictures(self) -> bool:
        return self.text_rows < self.rows


@dataclass(frozen=True)
class Pick:
    """A record by number, and whether its pictures are seen."""

    index: int
    pictures: bool


def steps_of(stage: Stage, entries: Sequence[Entry]) -> int:
    """Optimiser steps of a stage."""
    return max(math.ceil(stage.epochs * len(_pool(stage, entries)) / stage.batch_size), 1)


def epochs_of(stage: Stage, entries: Sequence[Entry], steps: int) -> float:
    """The number of epochs that makes so many steps, at least one: the other way round."""
    return (steps - 0.5) * stage.batch_size / len(_pool(stage, entries))  # half a step below: that is rounded up


def training_order(stage: Stage, entries: Sequence[Entry], seed: int) -> list[Pick]:
    """`steps_of(...) * batch_size` picks; every `batch_size` of them are a step.

    Raises:
        RecipeError: the stage asks for records that the data has not.
    """
    rng, total = random.Random(seed), steps_of(stage, entries) * stage.batch_size
    picks = _curriculum(stage, entries, total, rng) if stage.records == "curriculum" else _plain(stage, entries, rng)
    chosen = [next(picks) for _ in range(total)]
    window = stage.batch_size * (_CURRICULUM_WINDOW if stage.records == "curriculum" else _WINDOW)
    ordered: list[Pick] = []
    for start in range(0, total, window):
        ordered += _batched(chosen[start : start + window], entries, stage.batch_size, rng)
    return ordered


def _pool(stage: Stage, entries: Sequence[Entry]) -> list[int]:
    wanted = {"text": (False,), "pictures": (True,)}.get(stage.records, (True, False))
    pool = [index for index, entry in enumerate(entries) if entry.has_pictures in wanted]
    if not pool:
        raise RecipeError(
            f"stage {stage.name!r} trains on records of kind {stage.records!r}, but the data has none: distil some, "
            "or change the recipe (stages.N.records=all)"
        )
    return pool


def _plain(stage: Stage, entries: Sequence[Entry], rng: random.Random) -> Iterator[Pick]:
    return (Pick(index, stage.pictures) for index in _endless(_pool(stage, entries), rng))


def _curriculum(stage: Stage, entries: Sequence[Entry], total: int, rng: random.Random) -> Iterator[Pick]:
    """Text alone up to `text_until`, then pictures with a probability that rises linearly to 1 (MSD). Where the data
    has no records without pictures, those with are read without them."""
    with_pictures = [index for index, entry in enumerate(entries) if entry.has_pictures]
    if not with_pictures:
        raise RecipeError(f"stage {stage.name!r}: a curriculum needs records with pictures, and the data has none")
    text = [index for index, entry in enumerate(entries) if not entry.has_pictures] or with_pictures
    texts, pictures = _endless(text, rng), _endless(with_pictures, rng)
    for position in range(total):
        share = max(position / total - stage.text_until, 0) / max(1 - stage.text_until, 1e-9)
        seen = rng.random() < share
        yield Pick(next(pictures) if seen else next(texts), seen)


def _endless(pool: list[int], rng: random.Random) -> Iterator[int]:
    """Every member once, in random order, then again in another."""
    while True:
        yield from rng.sample(pool, len(pool))


def _batched(picks: list[Pick], entries: Sequence[Entry], batch_size: int, rng: random.Random) -> list[Pick]:
    """Similar lengths together, batches in random order."""

    def rows(pick: Pick) -> int:
        return entries[pick.index].rows if pick.pictures else entries[pick.index].text_rows

    ordered = sorted(picks, key=rows)
    batches = [ordered[i : i + batch_size] for i in range(0, len(ordered), batch_size)]
    rng.shuffle(batches)
    return [pick for batch in batches for pick in batch]
