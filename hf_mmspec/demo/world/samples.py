"""The public samples of the embedded default: images, messages, reference answers and the facts to grade by.

Its border: one sample is made from (split, task, seed) and nothing else. Grading is `grade.py`.
"""

import random
import zlib
from collections.abc import Iterator
from typing import Any

from hf_mmspec.rewriting.instruction import rewriting_messages

from . import chart, chart_text, chat_text, rewrite_text, scene, scene_text
from .dialog_text import Dialog, chart_dialog, scene_dialog
from .scene import Scene
from .splits import Split, draw_chart, draw_nouns, draw_scene
from .words import NOUNS

ONE_PICTURE = ("scene", "chart", "dialog")  # each sample has exactly one picture and a reference answer
TASKS = (*ONE_PICTURE, "rewrite", "chat")


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
        "images": [scene.paint(facts)],
        "messages": [user(rng.choice(scene_text.QUESTIONS), with_image=True)],
        "answer": scene_text.describe(rng, facts),
        "facts": {"nouns": [thing.noun for thing in facts.things], "background": facts.background},
    }


def _chart_sample(split: Split, seed: int, rng: random.Random) -> dict[str, Any]:
    facts = draw_chart(split, seed)
    return {
        "images": [chart.paint(facts)],
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
        "images": [image],
        "messages": _dialog_messages(dialog),
        "answer": dialog.answer,
        "facts": {"kind": dialog.kind, "fact": dialog.fact},
    }


def draw_wish(split: Split, seed: int, rng: random.Random) -> tuple[rewrite_text.Wish, list[Scene]]:
    """A wish and the scenes it is about: none (two in ten), one, or two (two in ten)."""
    kind = rng.random()
    if kind < 0.2:
        return rewrite_text.text_to_image(rng, draw_nouns(split, seed)), []
    first = draw_scene(split, 3_000_000 + 2 * seed)
    if kind < 0.4:
        scenes = [first, draw_scene(split, 3_000_001 + 2 * seed)]
        return rewrite_text.multi_reference(rng, scenes), scenes
    if kind < 0.6:
        return rewrite_text.reference(rng, first), [first]
    new = rng.choice([noun for noun in NOUNS if noun not in {thing.noun for thing in first.things}])
    return rewrite_text.edit(rng, first, new), [first]


def _rewrite_sample(split: Split, seed: int, rng: random.Random) -> dict[str, Any]:
    wish, scenes = draw_wish(split, seed, rng)
    return {
        "images": [scene.paint(facts) for facts in scenes],
        "messages": rewriting_messages(wish.text, len(scenes)),
        "answer": rewrite_text.answer(rng, wish, scenes),
        "facts": {"task": wish.task, "ratio": wish.ratio, "nouns": wish.nouns, "keys": wish.keys},
    }


def _chat_sample(split: Split, seed: int, rng: random.Random) -> dict[str, Any]:
    """Every other question is about a picture; there is no reference answer."""
    if seed % 2 == 0:
        asked = chat_text.open_questions(split)
        question = asked[seed // 2 % len(asked)]
        return {"images": [], "messages": [user(question + chat_text.LENGTH)], "answer": "", "facts": {}}
    facts = draw_scene(split, 6_000_000 + seed)
    return {
        "images": [scene.paint(facts)],
        "messages": [user(rng.choice(chat_text.PICTURE_QUESTIONS) + chat_text.LENGTH, with_image=True)],
        "answer": "",
        "facts": {"nouns": [thing.noun for thing in facts.things]},
    }


_MAKERS = {
    "scene": _scene_sample,
    "chart": _chart_sample,
    "dialog": _dialog_sample,
    "rewrite": _rewrite_sample,
    "chat": _chat_sample,
}


def sample(split: Split, task: str, seed: int) -> dict[str, Any]:
    """One sample: `images` (PIL, 192 x 192), `image`, `messages`, `task`, `answer`, `facts`, `split` and `seed`.

    `image` is the first picture, or None where there is none; `answer` is empty for open questions (`chat`).
    """
    if task not in TASKS:
        raise ValueError(f"unknown task {task!r}: choose one of {', '.join(TASKS)}")
    made = _MAKERS[task](split, seed, _words_rng(split, task, seed))
    image = next(iter(made["images"]), None)
    return {"image": image, **made, "task": task, "split": split, "seed": seed}


def samples(split: Split = "test", task: str | None = None, n: int = 100, start: int = 0) -> Iterator[dict[str, Any]]:
    """Yields `n` samples from seed `start` on: of one task, or of the three that always have one picture, in turn."""
    if split not in ("train", "val", "test"):
        raise ValueError(f"unknown split {split!r}: choose train, val or test")
    tasks = ONE_PICTURE if task is None else (task,)
    for i in range(start, start + n):
        yield sample(split, tasks[i % len(tasks)], i // len(tasks))
