"""The public samples of the embedded default: images, messages, reference answers and the facts to grade by.

Its border: one sample is made from (split, task, seed) and nothing else. Grading is `grade.py`.
"""

import random
import zlib
from collections.abc import Iterator
from typing import Any

from . import chart, chart_text, scene, scene_text
from .dialog_text import Dialog, chart_dialog, scene_dialog
from .splits import Split, draw_chart, draw_scene

TASKS = ("scene", "chart", "dialog")


def _words_rng(split: str, task: str, seed: int) -> random.Random:
    return random.Random(zlib.crc32(f"words/{split}/{task}/{seed}".encode()))


def user(text: str, with_image: bool = False) -> dict[str, Any]:
    """A user message, the image before the text."""
    content = [{"type": "text", "text": text}]
    return {"role": "user", "content": [{"type": "image"}, *content] if with_image else content}


def assistant(text: str) -> dict[str, Any]:
    """An assistant message."""
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}


def _scene_sample(split: Split, seed: int, rng: random.Random) -> dict[str, Any]:
    facts = draw_scene(split, seed)
    return {
        "image": scene.paint(facts),
        "messages": [user(rng.choice(scene_text.QUESTIONS), with_image=True)],
        "answer": scene_text.describe(rng, facts),
        "facts": {"nouns": [thing.noun for thing in facts.things], "background": facts.background},
    }


def _chart_sample(split: Split, seed: int, rng: random.Random) -> dict[str, Any]:
    facts = draw_chart(split, seed)
    return {
        "image": chart.paint(facts),
        "messages": [user(rng.choice(chart_text.QUESTIONS), with_image=True)],
        "answer": chart_text.describe(rng, facts),
        "facts": {"values": {bar.noun: bar.number for bar in facts.bars}},
    }


def _dialog_messages(dialog: Dialog) -> list[dict[str, Any]]:
    return [user(dialog.first_question, with_image=True), assistant(dialog.first_answer), user(dialog.question)]


def _dialog_sample(split: Split, seed: int, rng: random.Random) -> dict[str, Any]:
    if rng.random() < 0.75:
        facts = draw_scene(split, 1_000_000 + seed)
        image, dialog = scene.paint(facts), scene_dialog(rng, facts)
    else:
        bars = draw_chart(split, 1_000_000 + seed)
        image, dialog = chart.paint(bars), chart_dialog(rng, bars)
    return {
        "image": image,
        "messages": _dialog_messages(dialog),
        "answer": dialog.answer,
        "facts": {"kind": dialog.kind, "fact": dialog.fact},
    }


_MAKERS = {"scene": _scene_sample, "chart": _chart_sample, "dialog": _dialog_sample}


def sample(split: Split, task: str, seed: int) -> dict[str, Any]:
    """One sample: `image` (PIL, 192 x 192), `messages`, `task`, `answer`, `facts`, `split` and `seed`."""
    if task not in TASKS:
        raise ValueError(f"unknown task {task!r}: choose one of {', '.join(TASKS)}")
    made = _MAKERS[task](split, seed, _words_rng(split, task, seed))
    return {**made, "task": task, "split": split, "seed": seed}


def samples(split: Split = "test", task: str | None = None, n: int = 100, start: int = 0) -> Iterator[dict[str, Any]]:
    """Yields `n` samples from seed `start` on: of one task, or of all tasks in turn."""
    if split not in ("train", "val", "test"):
        raise ValueError(f"unknown split {split!r}: choose train, val or test")
    tasks = TASKS if task is None else (task,)
    for i in range(start, start + n):
        yield sample(split, tasks[i % len(tasks)], i // len(tasks))
