"""Graded accuracy of an answer, in 0..1, from its words.

Its border: text against facts. No model, no image.
"""

import json
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


def _f1(said: set[str], true: set[str]) -> float:
    hits = len(said & true)
    return 2 * hits / (len(said) + len(true)) if hits else float(not said and not true)


def _grade_rewrite(facts: dict[str, Any], text: str) -> dict[str, float]:
    try:
        made = json.loads(text)
        prompt, task, ratio = (str(made[name]) for name in ("rewritten_prompt", "task", "aspect_ratio"))
    except (ValueError, TypeError, KeyError):
        return dict.fromkeys(("score", "valid", "task", "ratio", "named", "wish"), 0.0)
    right = {"task": float(task == facts["task"]), "ratio": float(ratio == facts["ratio"])}
    named = _f1(set(named_nouns(prompt)), set(facts["nouns"]))
    wish = float(all(key in prompt.lower() for key in facts["keys"]))
    return {
        "score": named * wish * right["task"] * right["ratio"],
        "valid": 1.0,
        **right,
        "named": named,
        "wish": wish,
    }


def _grade_chat(facts: dict[str, Any], text: str) -> dict[str, float]:
    """Nothing but what a picture shows can be judged in a free answer."""
    true, said = set(facts.get("nouns", ())), set(named_nouns(text))
    return {"score": float(bool(true & said)), "precision": len(true & said) / max(len(said), 1)} if true else {}


_GRADERS = {
    "scene": _grade_scene,
    "chart": _grade_chart,
    "dialog": _grade_dialog,
    "rewrite": _grade_rewrite,
    "chat": _grade_chat,
}


def grade(sample: dict[str, Any], text: str) -> dict[str, float]:
    """Grades `text` as the answer to `sample`.

    scene: F1 of the things named (with `recall`, `precision`, `background`); chart: share of (thing, value) pairs
    right, invented pairs counting against it; dialog: the asked fact in the first sentence (again under the kind
    of question); rewrite: F1 of the things named in the rewritten prompt, 0 where the object, its task, its ratio or a
    word of the wish is wrong (each apart in `valid`, `task`, `ratio`, `named`, `wish`); chat: whether the answer names
    anything in the picture (with `precision`), nothing without a picture.
    """
    return _GRADERS[sample["task"]](sample["facts"], text)
