"""Which scene or chart belongs to which split, and the seeds that reproduce it.

Its border: picking facts. A split is decided by content (the nouns, and for charts their values too), so that no
combination seen in training can occur in validation or test, whatever the seeds.
"""

import random
import zlib
from typing import Literal

from . import chart, scene
from .chart import Chart
from .scene import Scene
from .words import NOUNS

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


def content_key(facts: Scene | Chart | list[str]) -> str:
    """What makes two pictures the same in content, whatever their layout and texture."""
    if isinstance(facts, list):
        return " ".join(sorted(facts))
    if isinstance(facts, Scene):
        return " ".join(sorted(thing.noun for thing in facts.things))
    return " ".join(sorted(f"{bar.noun}={bar.value}" for bar in facts.bars))


def split_of(facts: Scene | Chart | list[str]) -> Split:
    """The split that owns this content: one tenth test, one tenth validation, the rest training."""
    bucket = zlib.crc32(content_key(facts).encode()) % 10
    owners: dict[int, Split] = {0: "test", 1: "val"}
    return owners.get(bucket, "train")


def _rng(kind: str, split: Split, seed: int) -> random.Random:
    return random.Random(f"{kind}/{split}/{seed}")


def draw_scene(split: Split, seed: int) -> Scene:
    """The scene of this split with this seed."""
    rng = _rng("scene", split, seed)
    while split_of(facts := scene.draw_facts(rng)) != split:
        pass
    return facts


def draw_chart(split: Split, seed: int) -> Chart:
    """The chart of this split with this seed."""
    rng = _rng("chart", split, seed)
    while split_of(facts := chart.draw_facts(rng)) != split:
        pass
    return facts


def draw_nouns(split: Split, seed: int) -> list[str]:
    """One to three nouns of this split with this seed: what a wish without a picture names."""
    rng = _rng("nouns", split, seed)
    while split_of(nouns := rng.sample(list(NOUNS), rng.choice((1, 2, 2, 3)))) != split:
        pass
    return nouns
