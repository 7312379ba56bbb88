"""Strangers' text for the terminal: no markup of rich, no control sequences.

Knows nothing about what it says.
"""

from rich.markup import escape


def safe(value: object) -> str:
    """One line of characters that can be printed, taken as they are."""
    return safe_lines(" ".join(str(value).split()))


def safe_lines(text: str) -> str:
    """The same of a text, or a piece of one, whose line breaks and spaces stay."""
    return escape("".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text))
