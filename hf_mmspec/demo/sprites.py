"""The icons of our nouns at any size, from the committed sprite sheet.

Its border: pictures of single things. Putting them on a background is `scene.py` and `chart.py`.
"""

from functools import lru_cache

from PIL import Image

from .build_sprites import CELL, PER_ROW, SHEET
from .words import NOUNS


@lru_cache(maxsize=1)
def _sheet() -> Image.Image:
    return Image.open(SHEET).convert("RGBA")


@lru_cache(maxsize=8192)
def sprite(noun: str, size: int) -> Image.Image:
    """The icon of `noun` as a `size` x `size` RGBA image (shared: do not draw on it)."""
    i = list(NOUNS).index(noun)
    x, y = i % PER_ROW * CELL, i // PER_ROW * CELL
    return _sheet().crop((x, y, x + CELL, y + CELL)).resize((size, size), Image.Resampling.LANCZOS)
