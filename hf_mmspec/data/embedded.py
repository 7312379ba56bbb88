"""The prompts of the embedded default target: its tasks, plain text questions (`text`), and prompts about N pictures
(`pictures-N`).

Only prompts: who answers them is not known here. Training, validation and test prompts are disjoint.
"""

from dataclasses import replace
from typing import cast

from hf_mmspec.demo import samples
from hf_mmspec.demo.world.chat_text import open_questions
from hf_mmspec.demo.world.samples import TASKS
from hf_mmspec.demo.world.several import MOST, prompt
from hf_mmspec.demo.world.splits import Split

from .chat_form import append_text
from .conversation import Conversation, user_message
from .errors import DataError

SPLITS = ("train", "val", "test")
SEVERAL = tuple(f"pictures-{count}" for count in range(MOST + 1))


def conversation(split: str, task: str | None, append: str, number: int) -> Conversation:
    """Prompt `number` of a task, or (None) of all tasks in turn, with `append` behind it."""
    if task in SEVERAL:
        found = _several(split, SEVERAL.index(task), number)
    else:
        found = _question(split, number) if task == "text" else _sample(split, task, number)
    return replace(found, messages=append_text(found.messages, append)) if append else found


def _question(split: str, number: int) -> Conversation:
    return Conversation(
        [user_message(open_questions(cast(Split, split))[number])], task="text", key=f"text/{split}/{number}"
    )


def _several(split: str, pictures: int, number: int) -> Conversation:
    made = prompt(cast(Split, split), pictures, number)
    key = f"pictures-{pictures}/{split}/{number}"
    return Conversation(made["messages"], made["images"], made["task"], key)


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
    if task not in (None, "text", *TASKS, *SEVERAL):
        names = ", ".join((*TASKS, "text", f"{SEVERAL[0]} to {SEVERAL[-1]}"))
        raise DataError(f"embedded:{task}: choose one of {names}")
    if split not in SPLITS:
        raise DataError(f"the embedded data has no split {split!r}: choose one of {', '.join(SPLITS)}")
    return len(open_questions(cast(Split, split))) if task == "text" else None
