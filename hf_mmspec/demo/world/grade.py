"""Graded accuracy of an answer, in 0..1, from its words.

Its border: text against facts. No model, no image.
"""

import re
from typing import Any

from .wording import PLACES
from .words import BACKGROUNDS, NOUNS, NUMBERS

_PLURALS = {f"{noun}s": noun for noun in NOUNS if not noun.endswith("s")} | {"cherries": "cherry"}


def _tokens(text: str) -> list[str]:
    words = re.findall(r"[a-z]+", text.lower())
    return [_PLURALS.get(word, word) for word in words]


def named_nouns(text: str, known: tuple[str, ...] = tuple(NOUNS)) -> list[str]:
    """The nouns of our world that a text names, each once, in order.

    Words inside the stock phrases that mention another noun (a snowman's carrot, a magician's hat) do not count as
    long as they are not nouns of our world.
    """
    return list(dict.fromkeys(word for word in _tokens(text) if word in known))


def _grade_scene(facts: dict[str, Any], text: str) -> dict[str, float]:
    said, true = set(named_nouns(text)), set(facts["nouns"])
    hits = len(said & true)
    recall, precision = hits / len(true), hits / len(said) if said else 0.0
    f1 = 2 * recall * precision / (recall + precision) if hits else 0.0
    return {"score": f1, "recall": recall, "precision": precision, "background": float(facts["background"] in text)}


def claimed_values(text: str) -> dict[str, str]:
    """noun -> number word, from the clauses that name exactly one noun and one number; the first claim counts."""
    claims: dict[str, str] = {}
    for clause in re.split(r"[.,;:]|\bwhile\b|\bwhereas\b", text):
        words = _tokens(clause)
        nouns, numbers = set(words) & set(NOUNS), [word for word in words if word in NUMBERS]
        if len(nouns) == 1 and len(numbers) == 1:
            claims.setdefault(nouns.pop(), numbers[0])
    return claims


def _grade_chart(facts: dict[str, Any], text: str) -> dict[str, float]:
    true, said = facts["values"], claimed_values(text)
    right = sum(said.get(noun) == number for noun, number in true.items())
    return {"score": right / max(len(true), len(said)), "named": len(true.keys() & said.keys()) / len(true)}


def _first_sentence(text: str) -> str:
    return re.split(r"(?<=[.!?])\s", text.strip(), maxsplit=1)[0].lower()


def _first_place(text: str) -> str | None:
    found = [(text.find(place), -len(place), place) for place in PLACES if place in text]
    return min(found)[2] if found else None


def _first_of(words: list[str], known: tuple[str, ...]) -> str | None:
    return next((word for word in words if word in known), None)


def _grade_dialog(facts: dict[str, Any], text: str) -> dict[str, float]:
    first, fact = _first_sentence(text), facts["fact"]
    words = _tokens(first)
    said = {
        "where": _first_place(first),
        "what": _first_of(words, tuple(NOUNS)),
        "background": _first_of(words, BACKGROUNDS),
        "value": _first_of(words, NUMBERS),
    }[facts["kind"]]
    return {"score": float(said == fact), facts["kind"]: float(said == fact)}


_GRADERS = {"scene": _grade_scene, "chart": _grade_chart, "dialog": _grade_dialog}


def grade(sample: dict[str, Any], text: str) -> dict[str, float]:
    """Grades `text` as the answer to `sample`.

    scene: F1 of the things named (with `recall`, `precision`, `background`); chart: share of (thing, value) pairs
    right, invented pairs counting against it; dialog: the asked fact in the first sentence (again under the kind
    of question).
    """
    return _GRADERS[sample["task"]](sample["facts"], text)
