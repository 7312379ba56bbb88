"""Scenes: two to five things on a painted background, in a loose three by three layout.

Its border: facts and pixels of a scene. What is said about it is `scene_text.py`.
"""

import random
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from .sprites import sprite
from .words import BACKGROUNDS, COLUMNS, NOUNS, ROWS

SIZE = 192  # pixels of an image's side
CELL = SIZE // 3


@dataclass(frozen=True)
class Thing:
    """One icon in a scene: its centre (x, y) and side in pixels."""

    noun: str
    x: int
    y: int
    side: int

    @property
    def row(self) -> str:
        """top, middle or bottom."""
        return ROWS[min(self.y // CELL, 2)]

    @property
    def column(self) -> str:
        """left, center or right."""
        return COLUMNS[min(self.x // CELL, 2)]


@dataclass(frozen=True)
class Scene:
    """What is in the picture; `seed` fixes the background's texture."""

    background: str
    things: tuple[Thing, ...]
    seed: int


def draw_facts(rng: random.Random) -> Scene:
    """A random scene; no noun occurs twice, and every thing's centre stays well inside its own cell."""
    cells = sorted(rng.sample(range(9), rng.randint(2, 5)))
    nouns = rng.sample(list(NOUNS), len(cells))
    things = []
    for cell, noun in zip(cells, nouns, strict=True):
        side = rng.randrange(42, 72, 2)
        x = min(max(cell % 3 * CELL + CELL // 2 + rng.randint(-14, 14), side // 2), SIZE - side // 2)
        y = min(max(cell // 3 * CELL + CELL // 2 + rng.randint(-14, 14), side // 2), SIZE - side // 2)
        things.append(Thing(noun, x, y, side))
    return Scene(rng.choice(BACKGROUNDS), tuple(things), rng.getrandbits(31))


def _ground(top: tuple, bottom: tuple, noise: np.ndarray, grain: float) -> np.ndarray:
    ramp = np.linspace(0, 1, SIZE, dtype=np.float32)[:, None, None]
    base = np.asarray(top, np.float32) * (1 - ramp) + np.asarray(bottom, np.float32) * ramp
    return base + noise[:, :, None] * grain


def _specks(image: Image.Image, rng: random.Random, colour: tuple, count: int, size: int) -> None:
    draw = ImageDraw.Draw(image)
    for _ in range(count):
        x, y, s = rng.randrange(SIZE), rng.randrange(SIZE), rng.randint(1, size)
        draw.ellipse((x, y, x + s, y + s), fill=colour)


def _strokes(image: Image.Image, rng: random.Random, colour: tuple, count: int, dx: int, dy: int) -> None:
    draw = ImageDraw.Draw(image)
    for _ in range(count):
        x, y = rng.randrange(SIZE), rng.randrange(SIZE)
        draw.line((x, y, x + dx + rng.randint(-2, 2), y + dy), fill=colour, width=rng.randint(1, 2))


def _bricks(image: Image.Image, rng: random.Random) -> None:
    draw, shift = ImageDraw.Draw(image), rng.randrange(24)
    for row in range(-1, SIZE // 16 + 1):
        y = row * 16 + shift % 16
        draw.line((0, y, SIZE, y), fill=(205, 190, 178), width=2)
        for x in range(-32 + shift + row % 2 * 16, SIZE, 32):
            draw.line((x, y, x, y + 16), fill=(205, 190, 178), width=2)


def paint_background(name: str, seed: int) -> Image.Image:
    """A 192 x 192 RGB background, the same for the same seed."""
    rng = random.Random(seed)
    noise = np.random.default_rng(seed).standard_normal((SIZE, SIZE), dtype=np.float32)
    shade = rng.randint(-12, 12)
    tops = {
        "grass": ((120, 190, 90), (70, 140, 55)),
        "sand": ((236, 214, 160), (214, 182, 120)),
        "snow": ((226, 236, 246), (250, 252, 255)),
        "night": ((16, 18, 48), (40, 36, 84)),
        "water": ((90, 180, 220), (30, 105, 170)),
        "brick": ((170, 84, 66), (150, 70, 56)),
    }
    top, bottom = (tuple(c + shade for c in colour) for colour in tops[name])
    pixels = _ground(top, bottom, noise, 9.0 if name == "sand" else 4.0)
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    if name == "grass":
        _strokes(image, rng, (60, 130, 48), 90, 0, -7)
    elif name == "snow":
        _specks(image, rng, (190, 208, 228), 60, 4)
    elif name == "night":
        _specks(image, rng, (244, 240, 200), 45, 2)
    elif name == "water":
        _strokes(image, rng, (180, 222, 242), 45, 14, 0)
    elif name == "brick":
        _bricks(image, rng)
    return image


def paint(scene: Scene) -> Image.Image:
    """The scene as a 192 x 192 RGB image."""
    image = paint_background(scene.background, scene.seed)
    for thing in scene.things:
        icon = sprite(thing.noun, thing.side)
        image.paste(icon, (thing.x - thing.side // 2, thing.y - thing.side // 2), icon)
    return image
