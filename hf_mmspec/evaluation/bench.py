"""The protocol: every contender answers every prompt, taking turns, several times; then every answer is checked.

Runs and collects; `metrics.py` makes numbers of it and `report.py` a document.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from transformers import PreTrainedModel

from hf_mmspec.demo import grade
from hf_mmspec.generation.costs import ForwardCosts, measure_verify

from .contenders import STOCK, Contender, Run, answer
from .identity import Difference, find_difference
from .prompts import EMBEDDED, Prompt

_WARM_UP_TOKENS = 16
_VERIFY_SECONDS = 2.0

PromptsByTask = Mapping[str, Sequence[Prompt]]


@dataclass(frozen=True)
class Settings:
    """What is run.

    Args:
        data: sources of prompts, as they were named.
        tasks: tasks that are wanted; None for all that the data has.
        samples: prompts per task.
        repetitions: how often each contender answers each prompt.
        max_new_tokens: as for `generate`.
        temperatures: each is a run of its own; 0 is greedy decoding.
        split: of the data; None for its own default.
    """

    data: tuple[str, ...] = (EMBEDDED,)
    tasks: tuple[str, ...] | None = None
    samples: int = 12
    repetitions: int = 3
    max_new_tokens: int = 160
    temperatures: tuple[float, ...] = (0.0,)
    split: str | None = None


@dataclass
class Results:
    """All runs at one temperature, and what was checked on them.

    Args:
        runs: `runs[contender][task]` is `[repetition][prompt]`.
        differences: `differences[contender][task]` has an entry per prompt, None where the answers are equal. Empty
            where answers are sampled.
        accuracy: `accuracy[contender][task]`, the mean grade of the first repetition; None where the data brings no
            grading.
        growth: `growth[contender]`, the target's forward at the contender's mean tree size relative to one token: the
            median of measurements made after each task of each repetition.
        image_tokens: `image_tokens[task]` has an entry per prompt.
    """

    temperature: float
    runs: dict[str, dict[str, list[list[Run]]]]
    differences: dict[str, dict[str, list[Difference | None]]]
    accuracy: dict[str, dict[str, float | None]]
    growth: dict[str, float]
    image_tokens: dict[str, list[int]]


def run_bench(
    target: PreTrainedModel,
    processor: Any,
    contenders: Sequence[Contender],
    prompts: PromptsByTask,
    settings: Settings,
    temperature: float = 0.0,
    progress: Callable[[str], None] = lambda text: None,
) -> Results:
    """Measure `contenders`, of which the first is the stock baseline, on `target`.

    Args:
        progress: told in a few words what is being run.
    """
    for contender in contenders:  # kernels, memory and the automatic draft budget are paid for outside of the clock
        answer(target, next(iter(prompts.values()))[0].inputs, contender, _WARM_UP_TOKENS, temperature)
    runs: dict[str, dict[str, list[list[Run]]]] = {each.name: {task: [] for task in prompts} for each in contenders}
    growth: dict[str, list[float]] = {}
    for repetition, task in itertools.product(range(settings.repetitions), prompts):
        progress(f"{task} at T = {temperature:g}: repetition {repetition + 1} of {settings.repetitions}")
        rows = _take_turns(target, prompts[task], contenders, settings.max_new_tokens, temperature)
        for name, row in rows.items():
            runs[name][task].append(row)
        for name, measured in _verify_growth(target, rows).items():
            growth.setdefault(name, []).append(measured)
    progress("checking every answer")
    return Results(
        temperature=temperature,
        runs=runs,
        differences={
            name: _differences(target, prompts, runs[STOCK], by_task) if temperature == 0 else {}
            for name, by_task in runs.items()
        },
        accuracy={name: _accuracy(processor, prompts, by_task) for name, by_task in runs.items()},
        growth={name: median(measured) for name, measured in growth.items()},
        image_tokens={task: [prompt.image_tokens for prompt in members] for task, members in prompts.items()},
    )


def _take_turns(
    target: PreTrainedModel,
    prompts: Sequence[Prompt],
    contenders: Sequence[Contender],
    max_new_tokens: int,
    temperature: float,
) -> dict[str, list[Run]]:
    """One run of every prompt by every contender; who comes first changes from prompt to prompt."""
    rows: dict[str, list[Run]] = {contender.name: [] for contender in contenders}
    for index, prompt in enumerate(prompts):
        shift = index % len(contenders)
        for contender in (*contenders[shift:], *contenders[:shift]):
            torch.manual_seed(index)  # sampled answers are the same in every repetition
            rows[contender.name].append(answer(target, prompt.inputs, contender, max_new_tokens, temperature))
    return rows


def _differences(
    target: PreTrainedModel,
    prompts: PromptsByTask,
    baseline: dict[str, list[list[Run]]],
    ours: dict[str, list[list[Run]]],
) -> dict[str, list[Difference | None]]:
    """The first difference of every prompt, over all repetitions: repeating greedy decoding must change nothing."""
    return {
        task: [
            next(filter(None, (_compare(target, prompt, baseline[task][0][i], row[i]) for row in ours[task])), None)
            for i, prompt in enumerate(prompts[task])
        ]
        for task in prompts
    }


def _compare(target: PreTrainedModel, prompt: Prompt, baseline: Run, run: Run) -> Difference | None:
    return find_difference(target, prompt.inputs, baseline.tokens, run.tokens)


def _accuracy(processor: Any, prompts: PromptsByTask, runs: dict[str, list[list[Run]]]) -> dict[str, float | None]:
    """Mean grade by task."""
    accuracy: dict[str, float | None] = {}
    for task, members in prompts.items():
        grading = [prompt.conversation.grading for prompt in members]
        texts = processor.batch_decode([run.tokens for run in runs[task][0]], skip_special_tokens=True)
        grades = [grade(dict(each), text)["score"] for each, text in zip(grading, texts, strict=True) if each]
        accuracy[task] = sum(grades) / len(grades) if len(grades) == len(members) else None
    return accuracy


def _verify_growth(target: PreTrainedModel, rows: dict[str, list[Run]]) -> dict[str, float]:
    """v at the mean tree size of each contender that drafts with our loop."""
    sizes = {name: size for name, row in rows.items() if (size := _mean_tree_size(row)) is not None}
    if not sizes:
        return {}
    # A slow target has no time for all sizes of a comparison of many budgets. What is missing is interpolated, so the
    # largest comes early: beyond the measured ones there would only be a guess.
    order = (1, *sorted(set(sizes.values()) - {1}, reverse=True))
    seconds = measure_verify(target, order, time_limit=_VERIFY_SECONDS)
    costs = ForwardCosts(tuple(sorted(seconds.items())), first_level=0.0, level=())
    return {name: costs.growth(size) for name, size in sizes.items()}


def _mean_tree_size(runs: list[Run]) -> int | None:
    """Tokens per verification, root included, rounded."""
    each = [run.speculation for run in runs if run.speculation]
    rounds = sum(speculation.rounds for speculation in each)
    return round(sum(sum(speculation.drafted) for speculation in each) / rounds) + 1 if rounds else None
