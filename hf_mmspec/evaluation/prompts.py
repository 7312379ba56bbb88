"""The prompts of a bench: conversations of any source as the tensors that the target takes, unusable ones counted.

Knows where prompts come from and what their inputs look like; knows nothing of contenders or answers.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from hf_mmspec.data import (
    Conversation,
    Conversations,
    PictureError,
    Source,
    find_placeholder,
    model_inputs,
    open_source,
)
from hf_mmspec.data.embedded import TASKS
from hf_mmspec.generation.visual_spans import visual_token_ids

EMBEDDED = "embedded"
EMBEDDED_SOURCE = Source(EMBEDDED)
# Without wanted tasks nobody knows which ones a source has: they are looked for among its first conversations.
LOOKED_THROUGH = 1000


@dataclass
class Prompt:
    """A conversation and the tensors that `generate` takes for it."""

    conversation: Conversation
    inputs: dict[str, torch.Tensor]
    image_tokens: int = 0


@dataclass
class Prompts:
    """Prompts by task, and how many conversations were skipped, by reason."""

    by_task: dict[str, list[Prompt]] = field(default_factory=dict)
    skipped: Counter[str] = field(default_factory=Counter)


def open_data(data: Sequence[str], samples: int, options: Source = EMBEDDED_SOURCE) -> dict[str, Conversations]:
    """Sources by short names; no picture is read yet.

    Args:
        data: as `Source.data`.
        samples: prompts of each task that are wanted.
        options: everything else about the sources; its own `data` is not used, columns only by tables, and for its
            split see `split_of`.

    Raises:
        DataError: a source cannot be opened.
    """
    names = unique_names([_short_name(each) for each in data])
    return {
        name: open_source(_limited(replace(options, data=each, split=split_of(each, options.split)), samples))
        for name, each in zip(names, data, strict=True)
    }


def _limited(source: Source, samples: int) -> Source:
    """The embedded generators never end; their tasks take turns."""
    return replace(source, limit=samples * len(TASKS)) if _is_embedded(source.data) else source


def split_of(data: str, split: str | None) -> str | None:
    """The split that is read: where none is asked for, `"test"` of the embedded data; of others None, the usual one
    (see `Source`)."""
    return split or ("test" if _is_embedded(data) else None)


def _short_name(data: str) -> str:
    """The last part of a path; of `NAME=PATH` (a public set) its name."""
    name, is_public, _ = data.partition("=")
    return name if is_public else Path(data).name or data


def _is_embedded(data: str) -> bool:
    return data.partition(":")[0] == EMBEDDED


def unique_names(names: Sequence[str], taken: Sequence[str] = ()) -> list[str]:
    """The same names; one that is given or taken already gets a number."""
    found: list[str] = []
    for name in names:
        free = (f"{name}{suffix}" for suffix in ("", *(f"-{i}" for i in range(2, len(names) + len(taken) + 2))))
        found.append(next(each for each in free if each not in found and each not in taken))
    return found


def collect_prompts(
    target: PreTrainedModel,
    processor: Any,
    sources: Mapping[str, Conversations],
    samples: int,
    tasks: Sequence[str] | None = None,
) -> Prompts:
    """The first `samples` usable prompts of each task.

    Args:
        sources: by name. Where there are several, a task is called `name/task`, or `name` where the source knows none.
        tasks: those that are wanted, by the name of the report; all by default.

    Raises:
        ValueError: no prompt is left, or none of a wanted task.
    """
    found = Prompts({task: [] for task in tasks or ()})
    seen: dict[str, None] = {}
    for name, conversations in sources.items():
        for conversation in _usable(conversations, found, samples, tasks):
            task = _task_name(conversation, name if len(sources) > 1 else None)
            seen[task] = None
            if (tasks and task not in tasks) or len(found.by_task.get(task, ())) >= samples:
                continue
            prompt = _prepare(target, processor, conversation, found.skipped)
            if prompt is not None:
                found.by_task.setdefault(task, []).append(prompt)
    _check(found, seen)
    return found


def first_prompts(
    target: PreTrainedModel, processor: Any, sources: Mapping[str, Conversations], count: int = 1
) -> list[Prompt]:
    """The first `count` usable ones of all, or as many as there are.

    Raises:
        ValueError: there is none.
    """
    skipped: Counter[str] = Counter()
    found: list[Prompt] = []
    for conversations in sources.values():
        for conversation in conversations.usable(skipped):
            prompt = _prepare(target, processor, conversation, skipped)
            if prompt is not None:
                found.append(prompt)
            if len(found) == count:
                return found
    if not found:
        raise ValueError("there is no usable prompt in the data")
    return found


def to_target(inputs: Any, target: PreTrainedModel) -> dict[str, Any]:
    """Tensors on the target's device, those of pixels in its dtype."""
    return dict(inputs.to(target.device, target.dtype))


def _usable(
    conversations: Conversations, found: Prompts, samples: int, tasks: Sequence[str] | None
) -> Iterator[Conversation]:
    """Those that can be read, until every wanted task has enough prompts."""
    within = conversations if tasks else conversations[:LOOKED_THROUGH]
    for conversation in within.usable(found.skipped):
        if tasks and all(len(found.by_task[task]) >= samples for task in tasks):
            return
        yield conversation


def _task_name(conversation: Conversation, source: str | None) -> str:
    if source is None:
        return conversation.task
    return source if conversation.task == "all" else f"{source}/{conversation.task}"


def _prepare(
    target: PreTrainedModel, processor: Any, conversation: Conversation, skipped: Counter[str]
) -> Prompt | None:
    if find_placeholder(processor, target.config, conversation.text) is not None:
        skipped["a placeholder's own text in the prompt"] += 1
        return None
    try:
        inputs = to_target(model_inputs(processor, [conversation]), target)
    except PictureError:
        skipped["broken picture"] += 1
        return None
    except ValueError as error:  # for example a template that has no place for a system message
        skipped[f"the processor refuses it: {' '.join(str(error).split())[:80]}"] += 1
        return None
    visual = torch.tensor(list(visual_token_ids(target.config).values()), device=target.device)
    return Prompt(conversation, inputs, int(torch.isin(inputs["input_ids"], visual).sum()))


def _check(found: Prompts, seen: Iterable[str]) -> None:
    empty = [task for task, prompts in found.by_task.items() if not prompts]
    if not empty and found.by_task:
        return
    which = f"of the task {', '.join(empty)}" if empty else "in the data"
    reasons = "; ".join(f"{count} x {reason}" for reason, count in found.skipped.items())
    raise ValueError(
        f"there is no usable prompt {which}: its tasks are {', '.join(seen) or 'unknown'}"
        f"{f'; skipped were {reasons}' if reasons else ''}"
    )
