"""Charts: three or four bars of unit blocks, each over the icon of what it counts.

Its border: facts and pixels of a chart. What is said about it is `chart_text.py`.
"""

import random
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from .scene import SIZE
from .sprites import sprite
from .words import COLOURS, NOUNS, NUMBERS

UNIT = 16  # pixels of one unit, the side of a patch of the vision tower


@dataclass(frozen=True)
class Bar:
    """One bar: what it counts, how many, and its slot: left edge and width in pixels."""

    noun: str
    value: int
    x: int
    width: int

    @property
    def number(self) -> str:
        """The value as a word."""
        return NUMBERS[self.value - 1]


@dataclass(frozen=True)
class Chart:
    """Bars from left to right, all of one colour, standing on the line `base` (in pixels from the top)."""

    bars: tuple[Bar, ...]
    colour: str
    base: int
    icon: int
    seed: int


def draw_facts(rng: random.Random) -> Chart:
    """A random chart with different nouns and different values."""
    count = rng.choice((3, 3, 4))
    nouns, values = rng.sample(list(NOUNS), count), rng.sample(range(1, 10), count)
    slot, icon = SIZE // count, rng.randrange(38, 44, 2)
    width = rng.randrange(26, 38, 2)
    bars = tuple(
        Bar(noun, value, i * slot + (slot - width) // 2 + rng.randint(-2, 2), width)
        for i, (noun, value) in enumerate(zip(nouns, values, strict=True))
    )
    return Chart(bars, rng.choice(list(COLOURS)), 146 + rng.randint(0, 2), icon, rng.getrandbits(31))


def paint(chart: Chart) -> Image.Image:
    """The chart as a 192 x 192 RGB image."""
    noise = np.random.default_rng(chart.seed).standard_normal((SIZE, SIZE), dtype=np.float32)
    pixels = np.asarray((252, 250, 244), np.float32) + noise[:, :, None] * 2.0
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for bar in chart.bars:
        for unit in range(bar.value):
            bottom = chart.base - unit * UNIT
            draw.rectangle((bar.x, bottom - UNIT + 2, bar.x + bar.width, bottom), fill=COLOURS[chart.colour])
        icon = sprite(bar.noun, chart.icon)
        image.paste(icon, (bar.x + bar.width // 2 - chart.icon // 2, chart.base + 3), icon)
    draw.line((4, chart.base + 1, SIZE - 4, chart.base + 1), fill=(70, 70, 70), width=2)
    return image
