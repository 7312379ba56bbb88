"""Text of anybody's as Markdown that does nothing: no HTML, no formatting, no way out of its line or its block.

Knows nothing about cards.
"""

import html
import re

_SPECIAL = re.compile(r"([\\`*_\[\]|~$#])")


def one_line(value: object) -> str:
    """Its characters that can be printed, white space as single blanks."""
    return "".join(letter for letter in " ".join(str(value).split()) if letter.isprintable())


def inert(value: object) -> str:
    """For a sentence or a cell of a table."""
    return html.escape(_SPECIAL.sub(r"\\\1", one_line(value)), quote=False)


def fenced(code: str, language: str = "") -> str:
    """A block of code whose fence is longer than any in it."""
    longest = max((len(run) for run in re.findall("`+", code)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{code}\n{fence}"
