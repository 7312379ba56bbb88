"""The prompts that a drafter of the embedded default learns from: its tasks with images, and plain text questions.

Only prompts: the answers are the target's own. Training, validation and test prompts are disjoint.
"""

import random
from collections.abc import Iterator

from hf_mmspec.demo import samples
from hf_mmspec.demo.splits import Split

from .distil import Prompt, fill_image

TASKS = ("scene", "chart", "dialog")

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


def image_prompts(split: Split, task: str, n: int, start: int = 0) -> Iterator[Prompt]:
    """Prompts of one task of the embedded default, from sample `start` on."""
    for sample in samples(split, task, n, start):
        source = {"task": task, "split": split, "seed": sample["seed"]}
        yield Prompt(fill_image(sample["messages"], sample["image"]), source)


def text_prompts(split: Split, n: int) -> list[Prompt]:
    """Up to `n` questions without an image; validation and test have topics of their own."""
    share = {"train": _TOPICS[:32], "val": _TOPICS[32:36], "test": _TOPICS[36:]}[split]
    asked = [question.format(topic) for topic in share for question in _QUESTIONS]
    random.Random(0).shuffle(asked)
    return [
        Prompt(
            [{"role": "user", "content": [{"type": "text", "text": text}]}],
            {"task": "text", "split": split, "seed": i},
        )
        for i, text in enumerate(asked[:n])
    ]
