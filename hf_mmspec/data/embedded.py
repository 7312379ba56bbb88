"""The prompts of the embedded default target: its tasks, and plain text questions (`text`).

Only prompts: who answers them is not known here. Training, validation and test prompts are disjoint.
"""

from dataclasses import replace
from typing import cast

from hf_mmspec.demo import samples
from hf_mmspec.demo.world.chat_text import open_questions
from hf_mmspec.demo.world.samples import TASKS
from hf_mmspec.demo.world.splits import Split

from .chat_form import append_text
from .conversation import Conversation, user_message
from .errors import DataError

SPLITS = ("train", "val", "test")


def conversation(split: str, task: str | None, append: str, number: int) -> Conversation:
    """Prompt `number` of a task, or (None) of all tasks in turn, with `append` behind it."""
    found = _question(split, number) if task == "text" else _sample(split, task, number)
    return replace(found, messages=append_text(found.messages, append)) if append else found


def _question(split: str, number: int) -> Conversation:
    return Conversation(
        [user_message(open_questions(cast(Split, split))[number])], task="text", key=f"text/{split}/{number}"
    )


def _sample(split: str, task: str | None, number: int) -> Conversation:
    """`grading` is what `hf_mmspec.demo.grade` takes, None where nothing can be judged."""
    chosen, seed = (task, number) if task else (TASKS[number % len(TASKS)], number // len(TASKS))
    sample = next(samples(cast(Split, split), chosen, 1, seed))
    key = f"{sample['task']}/{split}/{sample['seed']}"
    grading = {name: sample[name] for name in ("task", "facts")} if sample["facts"] else None
    return Conversation(sample["messages"], sample["images"], sample["task"], key, grading=grading)


def size(task: str | None, split: str) -> int | None:
    """How many prompts there are; None: without end.

    Raises:
        DataError: an unknown task or split.
    """
    if task not in (None, "text", *TASKS):
        raise DataError(f"embedded:{task}: choose one of {', '.join((*TASKS, 'text'))}")
    if split not in SPLITS:
        raise DataError(f"the embedded data has no split {split!r}: choose one of {', '.join(SPLITS)}")
    return len(open_questions(cast(Split, split))) if task == "text" else None
