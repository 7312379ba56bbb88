"""The icons of our nouns at any size, from the committed sprite sheet.

Its border: the sheet's layout and pictures of single things. Putting them on a background is `scene.py` and
`chart.py`.
"""

from functools import lru_cache
from pathlib import Path

from PIL import Image

from .words import NOUNS

CELL = 96  # pixels of one icon
PER_ROW = 10
SHEET = Path(__file__).parent / "assets" / "sprites.png"


@lru_cache(maxsize=1)
def _sheet() -> Image.Image:
    return Image.open(SHEET).convert("RGBA")


@lru_cache(maxsize=8192)
def sprite(noun: str, size: int) -> Image.Image:
    """The icon of `noun` as a `size` x `size` RGBA image (shared: do not draw on it)."""
    i = list(NOUNS).index(noun)
    x, y = i % PER_ROW * CELL, i // PER_ROW * CELL
    return _sheet().crop((x, y, x + CELL, y + CELL)).resize((size, size), Image.Resampling.LANCZOS)
