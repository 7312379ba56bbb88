"""Prompts about any number of pictures, of the same kinds for every number, to compare what visual tokens change.

Its border: prompts alone, no reference answers and no grades; samples of the tasks themselves are `samples.py`.
"""

import random
import zlib
from collections.abc import Callable, Sequence
from typing import Any

from hf_mmspec.rewriting.instruction import rewriting_messages

from . import chat_text, rewrite_text, scene, scene_text
from .dialog_text import scene_dialog
from .samples import assistant, user
from .scene import Scene
from .splits import Split, draw_nouns, draw_scene

MOST = 8  # pictures that a seed has
_FIRST_SEED = 8_000_000  # of scenes that no task shows

_QUESTIONS = (
    "Describe the pictures.",
    "What can you see in these pictures?",
    "Please describe these images in detail.",
    "What do the pictures show?",
)


def _describe(rng: random.Random, scenes: Sequence[Scene], question: str) -> list[dict[str, Any]]:
    """All pictures in one message; `question` where there is none."""
    asked = rng.choice(_QUESTIONS if len(scenes) > 1 else scene_text.QUESTIONS) if scenes else question
    message = user(asked)
    return [{**message, "content": [*({"type": "image"} for _ in scenes), *message["content"]]}]


def _dialog(rng: random.Random, scenes: Sequence[Scene], question: str) -> list[dict[str, Any]]:
    """A turn for each picture, and a question about the last one, which is the same however many were before."""
    dialogs = [scene_dialog(rng, facts) for facts in reversed(scenes)]
    messages: list[dict[str, Any]] = []
    for dialog in reversed(dialogs):
        messages += [user(dialog.first_question, with_image=True), assistant(dialog.first_answer)]
    return [*messages, user(dialogs[0].question if dialogs else question)]


def _wish(rng: random.Random, scenes: Sequence[Scene], nouns: Sequence[str]) -> list[dict[str, Any]]:
    """A wish for an image generator that takes things out of all pictures."""
    if not scenes:
        wish = rewrite_text.text_to_image(rng, nouns)
    elif len(scenes) == 1:
        wish = rewrite_text.reference(rng, scenes[0])
    else:
        wish = rewrite_text.multi_reference(rng, scenes)
    return rewriting_messages(wish.text, len(scenes))


_KINDS: dict[str, Callable[..., list[dict[str, Any]]]] = {"scene": _describe, "dialog": _dialog, "rewrite": _wish}


def prompt(split: Split, pictures: int, seed: int) -> dict[str, Any]:
    """One prompt: `images` (PIL, 192 x 192), `messages`, `task`. Seeds take the kinds in turn: a description, the last
    turn of a dialog and a wish. Without pictures the first two are open questions. More pictures of the same seed come
    before the others.

    Raises:
        ValueError: `pictures` is below 0 or above `MOST`.
    """
    if not 0 <= pictures <= MOST:
        raise ValueError(f"prompts have 0 to {MOST} pictures, not {pictures}")
    task = list(_KINDS)[seed % len(_KINDS)]
    rng = random.Random(zlib.crc32(f"several/{split}/{seed}".encode()))
    scenes = [draw_scene(split, _FIRST_SEED + MOST * seed + number) for number in reversed(range(pictures))]
    if task == "rewrite":
        messages = _wish(rng, scenes, draw_nouns(split, _FIRST_SEED + seed))
    else:
        asked = chat_text.open_questions(split)
        messages = _KINDS[task](rng, scenes, asked[seed % len(asked)] + chat_text.LENGTH)
    if not scenes and task != "rewrite":
        task = "chat"
    return {"images": [scene.paint(facts) for facts in scenes], "messages": messages, "task": task}
