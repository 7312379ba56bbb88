"""Rasterises the icons of our nouns into the committed sprite sheet (run once; needs the `train` extra).

Its border: writing the sheet. Its layout and reading it back are `sprites.py`. The icons are Noto emoji (Apache-2.0):
`npm pack @iconify-json/noto`, then `python -m hf_mmspec.demo.making.build_sprites package/icons.json`.
"""

import io
import json
import sys
from pathlib import Path

from PIL import Image

from ..world.sprites import CELL, PER_ROW, SHEET
from ..world.words import NOUNS


def rasterise(icons: dict, name: str) -> Image.Image:
    """One icon of an iconify set as a `CELL` x `CELL` RGBA image."""
    import resvg_py

    icon = icons["icons"][name]
    width, height = icon.get("width", icons.get("width", 128)), icon.get("height", icons.get("height", 128))
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">{icon["body"]}</svg>'
    png = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=CELL, height=CELL))
    return Image.open(io.BytesIO(png)).convert("RGBA")


def build(icons_json: Path, sheet: Path = SHEET) -> None:
    """Writes the sheet: the nouns' icons in order, `PER_ROW` a row."""
    icons = json.loads(icons_json.read_text())
    rows = -(-len(NOUNS) // PER_ROW)
    image = Image.new("RGBA", (PER_ROW * CELL, rows * CELL))
    for i, name in enumerate(NOUNS.values()):
        image.paste(rasterise(icons, name), (i % PER_ROW * CELL, i // PER_ROW * CELL))
    image.save(sheet, optimize=True)


if __name__ == "__main__":
    build(Path(sys.argv[1]))
