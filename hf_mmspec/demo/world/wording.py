"""How our texts choose their words: a favourite that is taken most often, and some other ways to say it.

Its border: choices and grammar of single phrases. The favourites make greedy text draftable, the rest keep it from
being a template.
"""

import random
from collections.abc import Sequence

from .scene import Thing

FAVOURITE = 0.6
REMARK = 0.25
_PLACES = {
    ("top", "left"): "at the top left",
    ("top", "center"): "at the top",
    ("top", "right"): "at the top right",
    ("middle", "left"): "on the left",
    ("middle", "center"): "in the center",
    ("middle", "right"): "on the right",
    ("bottom", "left"): "at the bottom left",
    ("bottom", "center"): "at the bottom",
    ("bottom", "right"): "at the bottom right",
}
PLACES: tuple[str, ...] = tuple(_PLACES.values())
_SOME = ("grapes", "corn", "bread", "cheese")


def prefer(rng: random.Random, options: Sequence[str]) -> str:
    """The first option in six cases of ten, else one of the others."""
    return options[0] if len(options) == 1 or rng.random() < FAVOURITE else rng.choice(options[1:])


def a(noun: str) -> str:
    """The noun with its indefinite article."""
    if noun in _SOME:
        return f"some {noun}"
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def sized(thing: Thing) -> str:
    """The noun with its article and, where it stands out, its size."""
    size = "small " if thing.side < 50 else "large " if thing.side > 62 else ""
    return f"a {size}{thing.noun}" if size and thing.noun not in _SOME else a(thing.noun)


def maybe(rng: random.Random, remarks: Sequence[str]) -> str:
    """One of the remarks with a leading space, or, mostly, nothing."""
    return f" {rng.choice(remarks)}" if rng.random() < REMARK else ""


def verb(noun: str) -> str:
    """is, or are for the one noun that is a plural."""
    return "are" if noun == "grapes" else "is"


def place(thing: Thing) -> str:
    """Where a thing is, in words."""
    return _PLACES[thing.row, thing.column]


def listing(items: Sequence[str]) -> str:
    """a, b and c."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def sentence(text: str) -> str:
    """The text with a capital letter."""
    return text[0].upper() + text[1:]
