"""Strangers' text for the terminal: no markup of rich, no control sequences.

Knows nothing about what it says.
"""

from rich.markup import escape


def safe(value: object) -> str:
    """One line of characters that can be printed, taken as they are."""
    line = " ".join(str(value).split())
    return escape("".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in line))
