"""The prompts that a drafter of the embedded default learns from: its tasks with images, and plain text questions.

Only prompts: the answers are the target's own. Training, validation and test prompts are disjoint.
"""

from collections.abc import Iterator

from hf_mmspec.data.embedded import text_questions
from hf_mmspec.demo import samples
from hf_mmspec.demo.splits import Split

from .distil import Prompt, fill_image

TASKS = ("scene", "chart", "dialog")


def image_prompts(split: Split, task: str, n: int, start: int = 0) -> Iterator[Prompt]:
    """Prompts of one task of the embedded default, from sample `start` on."""
    for sample in samples(split, task, n, start):
        source = {"task": task, "split": split, "seed": sample["seed"]}
        yield Prompt(fill_image(sample["messages"], sample["image"]), source)


def text_prompts(split: Split, n: int) -> list[Prompt]:
    """Up to `n` questions without an image; validation and test have topics of their own."""
    return [
        Prompt(
            [{"role": "user", "content": [{"type": "text", "text": text}]}],
            {"task": "text", "split": split, "seed": i},
        )
        for i, text in enumerate(text_questions(split)[:n])
    ]
