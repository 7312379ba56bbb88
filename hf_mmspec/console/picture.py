"""One picture of comparisons: the images, the answer coloured by how each token came to be, the two speeds as bars.

Draws what `compare.py` found; all sizes are inches. Uses no pyplot, so it keeps no state.
"""

import math
import warnings
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from .compare import Comparison, Origin, rate

INK, MUTED, PAPER = "#1d2733", "#6b7785", "#ffffff"
COLOURS = {Origin.DRAFTED: "#bfe8dc", Origin.TARGET: "#ffdfae", Origin.FORCED: "#dfe3e8"}
DRAFTED_BAR, PLAIN_BAR = "#1f9d7f", "#aab4bf"

_WIDTH, _MARGIN, _HEAD = 12.0, 0.45, 1.0
_IMAGE, _GAP = 2.8, 0.4
_FONT_SIZE, _LINE, _TITLE, _BARS = 10.0, 0.235, 0.55, 0.85
_CHARACTER = 0.602 * _FONT_SIZE / 72  # the advance of DejaVu Sans Mono, which matplotlib brings along
_TEXT_LEFT = _MARGIN + _IMAGE + _GAP
_COLUMNS = int((_WIDTH - _MARGIN - _TEXT_LEFT) / _CHARACTER)

Character = tuple[str, int]  # a character and the index of the token that it belongs to


def draw(comparisons: Sequence[Comparison], path: Path) -> None:
    """Write the picture of all `comparisons`, one below the other, to `path` (its folder is made)."""
    wrapped = [wrap(_characters(each), _COLUMNS) for each in comparisons]
    heights = [_height(each, lines) for each, lines in zip(comparisons, wrapped, strict=True)]
    figure = Figure(figsize=(_WIDTH, _HEAD + sum(heights)), facecolor=PAPER)
    origins = {origin for each in comparisons for _, origin in each.pieces}
    _head(figure, all(_is_shorter_way_to_the_same(each) for each in comparisons), Origin.FORCED in origins)
    top = figure.get_figheight() - _HEAD
    for comparison, lines, height in zip(comparisons, wrapped, heights, strict=True):
        _draw_one(figure, comparison, lines, top)
        top -= height
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # an answer may hold characters that the font lacks
        figure.savefig(path, dpi=140)


def _height(comparison: Comparison, lines: list[list[Character]]) -> float:
    text = _TITLE + len(lines) * _LINE + 0.15 + _BARS
    return max(_IMAGE if comparison.images else 0.0, text) + _GAP


def wrap(characters: Sequence[Character], columns: int) -> list[list[Character]]:
    """Break characters into lines of at most `columns`, between words where a word fits on a line."""
    lines: list[list[Character]] = [[]]
    for word in _words(characters):
        if word[0][0] == "\n":
            lines.append([])
            continue
        if lines[-1] and len(lines[-1]) + len(word) > columns:
            lines.append([])
            word = word[1:] if word[0][0] == " " else word
        while len(word) > columns:
            lines[-1], word = list(word[:columns]), word[columns:]
            lines.append([])
        lines[-1].extend(word)
    return lines


def _words(characters: Sequence[Character]) -> Iterator[Sequence[Character]]:
    """Words with the space before them; a line break is a word of its own."""
    start = 0
    for index in range(1, len(characters) + 1):
        if index == len(characters) or characters[index][0] in " \n" or characters[start][0] == "\n":
            yield characters[start:index]
            start = index


def _characters(comparison: Comparison) -> list[Character]:
    """Every character to draw; control characters become a dot."""
    characters = [(character, index) for index, (text, _) in enumerate(comparison.pieces) for character in text]
    return [(each if each.isprintable() or each == "\n" else "·", index) for each, index in characters]


def _is_shorter_way_to_the_same(comparison: Comparison) -> bool:
    is_same = comparison.difference is None and not comparison.is_sampled
    return is_same and any(origin is Origin.DRAFTED for _, origin in comparison.pieces)


def _head(figure: Figure, is_shorter: bool, with_forced: bool) -> None:
    title = "The same words, in fewer steps" if is_shorter else "Without and with the drafter"
    _text(figure, _MARGIN, 0.42, title, size=17, weight="bold")
    places = {Origin.DRAFTED: 3.5, Origin.TARGET: 6.0} | ({Origin.FORCED: 1.1} if with_forced else {})
    for origin, place in places.items():
        x = _TEXT_LEFT + place
        axes = _axes(figure, x, 0.24, 0.26, 0.2)
        axes.add_patch(_box(0.0, 0.0, 1.0, 1.0, COLOURS[origin]))
        _text(figure, x + 0.36, 0.4, origin.value, size=10, color=MUTED)


def _draw_one(figure: Figure, comparison: Comparison, lines: list[list[Character]], top: float) -> None:
    """One comparison whose upper edge is `top` inches above the figure's lower one."""
    below = figure.get_figheight() - top
    _images(figure, comparison.images, below)
    _text(figure, _TEXT_LEFT, below + 0.14, comparison.title.upper(), size=8, color=MUTED, weight="bold")
    _text(figure, _TEXT_LEFT, below + 0.38, _shortened(comparison.question), size=11, weight="bold")
    _answer(figure, comparison, lines, below + _TITLE)
    _bars(figure, comparison, below + _TITLE + len(lines) * _LINE + 0.15)


def _images(figure: Figure, images: Sequence[Any], below: float) -> None:
    """All images in the square left of the text, row by row, in as few rows and columns as hold them."""
    columns = math.ceil(math.sqrt(len(images)))
    for index, image in enumerate(images):
        row, column = divmod(index, columns)
        side = _IMAGE / columns
        shown = side if columns == 1 else 0.95 * side  # a little paper between images
        axes = _axes(figure, _MARGIN + column * side, below + row * side, shown, shown)
        axes.imshow(image)
        axes.set_anchor("NW")
        axes.set_aspect("equal")


def _answer(figure: Figure, comparison: Comparison, lines: list[list[Character]], below: float) -> None:
    axes = _axes(figure, _TEXT_LEFT, below, _COLUMNS * _CHARACTER, len(lines) * _LINE)
    axes.set_xlim(0, _COLUMNS)
    axes.set_ylim(len(lines), 0)
    for row, line in enumerate(lines):
        column = 0
        for token, group in groupby(line, key=lambda character: character[1]):
            text = "".join(character for character, _ in group)
            colour = COLOURS[comparison.pieces[token][1]]
            axes.add_patch(_box(column + 0.06, row + 0.09, len(text) - 0.12, 0.82, colour))
            style: dict[str, Any] = {
                "family": "DejaVu Sans Mono",
                "size": _FONT_SIZE,
                "color": INK,
                "parse_math": False,
            }
            axes.text(column, row + 0.5, text, va="center_baseline", **style)
            column += len(text)


def _bars(figure: Figure, comparison: Comparison, below: float) -> None:
    rates = [rate(comparison.plain), rate(comparison.drafted)]
    axes = _axes(figure, _TEXT_LEFT, below, _COLUMNS * _CHARACTER, 0.62)
    axes.set_xlim(0, max(rates) * 1.65)
    axes.set_ylim(1.55, -0.55)
    axes.barh([0, 1], rates, height=0.74, color=[PLAIN_BAR, DRAFTED_BAR])
    for row, (value, label) in enumerate(zip(rates, _labels(comparison), strict=True)):
        axes.text(value + max(rates) * 0.012, row, label, va="center", size=9, color=INK)


def _labels(comparison: Comparison) -> list[str]:
    plain, drafted = rate(comparison.plain), rate(comparison.drafted)
    speculation = comparison.drafted.speculation
    length = f", L {speculation.acceptance_length:.2f}" if speculation and speculation.rounds else ""
    return [
        f"{plain:.1f} tokens/s alone",
        f"{drafted:.1f} tokens/s with the drafter: {comparison.speedup:.2f}x{length}",
    ]


def _shortened(text: str, length: int = 88) -> str:
    return text if len(text) <= length else f"{text[: length - 1].rstrip()}…"


def _axes(figure: Figure, left: float, below: float, width: float, height: float) -> Axes:
    """Axes without a frame; `below` is the distance of their upper edge from the figure's upper edge."""
    total_width, total_height = figure.get_size_inches()
    bottom = total_height - below - height
    axes = figure.add_axes((left / total_width, bottom / total_height, width / total_width, height / total_height))
    axes.set_axis_off()
    return axes


def _text(figure: Figure, left: float, below: float, text: str, **style: Any) -> None:
    width, height = figure.get_size_inches()
    figure.text(left / width, 1 - below / height, text, va="baseline", parse_math=False, **{"color": INK, **style})


def _box(x: float, y: float, width: float, height: float, colour: str) -> FancyBboxPatch:
    shape = "round,pad=0,rounding_size=0.12"
    return FancyBboxPatch((x, y), width, height, boxstyle=shape, facecolor=colour, edgecolor="none")
