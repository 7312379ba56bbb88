"""The prompts of the embedded default target: its tasks with pictures, and plain text questions.

Only prompts: who answers them is not known here. Training, validation and test prompts are disjoint.
"""

import random
from dataclasses import replace
from typing import Any, cast

from hf_mmspec.demo import samples

from .chat_form import append_text
from .conversation import Conversation, user_message
from .errors import DataError

TASKS = ("scene", "chart", "dialog")
SPLITS = ("train", "val", "test")

_TOPICS = [
    topic.strip()
    for topic in """
apples; a garden; the moon; a red bicycle; bread; honey bees; the ocean; a small village; cats; the
weather; a library; mountains; a school day; friendship; cooking soup; a long train ride; the colour
blue; birds in winter; music; a lighthouse; sleeping well; a birthday party; trees; a busy market;
rivers; the sun; running; an old clock; rainbows; a farm; football; learning to draw; tea; a castle;
clouds; healthy food; a robot; volcanoes; snow; a museum
""".replace("\n", " ").split(";")
]
_QUESTIONS = (
    "Write a short text about {}.",
    "Tell me something about {}.",
    "Describe {} in a few sentences.",
    "What do you know about {}?",
    "Explain to a child what is interesting about {}.",
    "Write a little story about {}.",
    "Give me three facts about {}.",
    "Why do people like {}?",
)


def text_questions(split: str) -> list[str]:
    """All questions without a picture, mixed; validation and test have topics of their own."""
    share = {"train": _TOPICS[:32], "val": _TOPICS[32:36], "test": _TOPICS[36:]}[split]
    asked = [question.format(topic) for topic in share for question in _QUESTIONS]
    random.Random(0).shuffle(asked)
    return asked


def conversation(split: str, task: str | None, append: str, number: int) -> Conversation:
    """Prompt `number` of a task, or (None) of the tasks with pictures in turn, with `append` behind it."""
    found = _question(split, number) if task == "text" else _sample(split, task, number)
    return replace(found, messages=append_text(found.messages, append)) if append else found


def _question(split: str, number: int) -> Conversation:
    return Conversation([user_message(text_questions(split)[number])], task="text", key=f"text/{split}/{number}")


def _sample(split: str, task: str | None, number: int) -> Conversation:
    """`grading` is what `hf_mmspec.demo.grade` takes."""
    sample = next(iter(samples(cast(Any, split), task, 1, number)))
    key = f"{sample['task']}/{split}/{sample['seed']}"
    grading = {name: sample[name] for name in ("task", "facts")}
    return Conversation(sample["messages"], [sample["image"]], sample["task"], key, grading=grading)


def size(task: str | None, split: str) -> int | None:
    """How many prompts there are; None: without end.

    Raises:
        DataError: an unknown task or split.
    """
    if task not in (None, "text", *TASKS):
        raise DataError(f"embedded:{task}: choose one of {', '.join((*TASKS, 'text'))}")
    if split not in SPLITS:
        raise DataError(f"the embedded data has no split {split!r}: choose one of {', '.join(SPLITS)}")
    return len(text_questions(split)) if task == "text" else None
