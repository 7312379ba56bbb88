"""What each of the 12 x 12 patches of an image shows: the supervision of the vision tower.

Its border: labels from facts. Turning labels into target embeddings is `stage_vision.py`.
"""

from dataclasses import dataclass

import numpy as np

from ..model.tower import GRID, PATCH
from ..world.chart import UNIT, Bar, Chart
from ..world.scene import SIZE, Scene, Thing
from ..world.sprites import sprite
from ..world.words import COLUMNS, NUMBERS, PAPER, PATCH_WORDS, ROWS

# What else a patch says: where its thing is (scenes), or how many of it (charts).
DETAIL_WORDS: tuple[str, ...] = (*ROWS, *COLUMNS, *NUMBERS)
_CLASS = {word: i for i, word in enumerate(PATCH_WORDS)}
_DETAIL = {word: i for i, word in enumerate(DETAIL_WORDS)}


@dataclass
class PatchLabels:
    """`words` [144] indexes PATCH_WORDS; `details` [144, 2] indexes DETAIL_WORDS, -1 where there is none."""

    words: np.ndarray
    details: np.ndarray

    @classmethod
    def filled(cls, word: str) -> "PatchLabels":
        """Labels of an image that shows only `word`; every patch says in which third of the image it lies."""
        third = np.arange(GRID) * 3 // GRID
        rows = np.repeat(third + _DETAIL[ROWS[0]], GRID)
        columns = np.tile(third + _DETAIL[COLUMNS[0]], GRID)
        return cls(np.full(GRID * GRID, _CLASS[word], np.int64), np.stack([rows, columns], 1).astype(np.int64))

    def write(self, where: np.ndarray, word: str, details: tuple[str, ...]) -> None:
        """Says that the patches in the mask `where` [144] show `word` with up to two details."""
        self.words[where] = _CLASS[word]
        self.details[where] = -1
        for i, detail in enumerate(details):
            self.details[where, i] = _DETAIL[detail]


def _cover(noun: str, side: int, left: int, top: int) -> np.ndarray:
    """Share of each patch [144] that an icon with this top left corner covers."""
    canvas = np.zeros((SIZE + 2 * SIZE, SIZE + 2 * SIZE), np.float32)
    alpha = np.asarray(sprite(noun, side))[:, :, 3]
    canvas[SIZE + top : SIZE + top + side, SIZE + left : SIZE + left + side] = alpha
    inner = canvas[SIZE : 2 * SIZE, SIZE : 2 * SIZE] / 255
    return inner.reshape(GRID, PATCH, GRID, PATCH).mean((1, 3)).reshape(-1)


def _write_thing(labels: PatchLabels, taken: np.ndarray, thing: Thing) -> None:
    half = thing.side // 2
    cover = _cover(thing.noun, thing.side, thing.x - half, thing.y - half)
    where = (cover >= 0.3) & (cover >= taken)
    labels.write(where, thing.noun, (thing.row, thing.column))
    taken[where] = cover[where]


def label_scene(scene: Scene) -> PatchLabels:
    """Labels of a scene: nouns with their own row and column, the rest background."""
    labels, taken = PatchLabels.filled(scene.background), np.zeros(GRID * GRID, np.float32)
    for thing in scene.things:
        _write_thing(labels, taken, thing)
    return labels


def _write_bar(labels: PatchLabels, chart: Chart, bar: Bar) -> None:
    """Each block carries its own height as a number, so that the topmost one tells the bar's value."""
    filled = np.zeros((SIZE, SIZE), np.float32)
    filled[max(chart.base - bar.value * UNIT, 0) : chart.base, bar.x : bar.x + bar.width] = 1
    cover = filled.reshape(GRID, PATCH, GRID, PATCH).mean((1, 3)).reshape(-1)
    row = np.repeat(np.arange(GRID), GRID)
    for height in range(1, bar.value + 1):
        here = (cover >= 0.5) & (row == chart.base // PATCH - height)
        labels.write(here, chart.colour, (NUMBERS[height - 1],))


def label_chart(chart: Chart) -> PatchLabels:
    """Labels of a chart: each icon carries the value of its bar, each block its height, the rest is paper."""
    labels = PatchLabels.filled(PAPER)
    for bar in chart.bars:
        _write_bar(labels, chart, bar)
        icon = _cover(bar.noun, chart.icon, bar.x + bar.width // 2 - chart.icon // 2, chart.base + 3)
        labels.write(icon >= 0.3, bar.noun, (bar.number,))
    return labels
