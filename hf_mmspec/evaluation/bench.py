"""The protocol: every contender answers every prompt, taking turns, several times; then every answer is checked.

Runs and collects; `metrics.py` makes numbers of it and `report.py` a document.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

import torch
from transformers import PreTrainedModel

from hf_mmspec.demo import grade, samples
from hf_mmspec.generation.costs import ForwardCosts, measure_verify

from .contenders import STOCK, Contender, Run, answer
from .identity import Difference, find_difference
from .loading import prepare

_WARM_UP_TOKENS = 16
_VERIFY_SECONDS = 2.0


@dataclass(frozen=True)
class Settings:
    """What is run.

    Args:
        tasks: tasks of the embedded default.
        samples: prompts per task.
        repetitions: how often each contender answers each prompt.
        max_new_tokens, temperature: as for `generate`; 0 is greedy decoding.
        split: `"test"` for results, `"val"` for choosing settings.
    """

    tasks: tuple[str, ...] = ("scene", "chart", "dialog")
    samples: int = 12
    repetitions: int = 3
    max_new_tokens: int = 160
    temperature: float = 0.0
    split: Literal["val", "test"] = "test"


@dataclass
class Prompt:
    """A sample and the tensors that `generate` takes for it."""

    sample: dict[str, Any]
    inputs: dict[str, torch.Tensor]


@dataclass
class Results:
    """All runs, and what was checked on them.

    Args:
        runs: `runs[contender][task]` is `[repetition][prompt]`.
        differences: `differences[contender][task]` has an entry per prompt, None where the answers are equal. Empty
            where answers are sampled.
        accuracy: `accuracy[contender][task]`, the mean grade of the first repetition.
        growth: `growth[contender]`, the target's forward at the contender's mean tree size relative to one token: the
            median of measurements made after each task of each repetition.
    """

    runs: dict[str, dict[str, list[list[Run]]]]
    differences: dict[str, dict[str, list[Difference | None]]]
    accuracy: dict[str, dict[str, float]]
    growth: dict[str, float]


def run_bench(
    target: PreTrainedModel,
    processor: Any,
    contenders: Sequence[Contender],
    settings: Settings,
    progress: Callable[[str], None] = lambda text: None,
) -> Results:
    """Measure `contenders`, of which the first is the stock baseline, on `target`.

    Args:
        progress: told in a few words what is being run.
    """
    prompts = {task: _prompts(target, processor, task, settings) for task in settings.tasks}
    for contender in contenders:  # kernels, memory and the automatic draft budget are paid for outside of the clock
        answer(target, next(iter(prompts.values()))[0].inputs, contender, _WARM_UP_TOKENS, settings.temperature)
    runs: dict[str, dict[str, list[list[Run]]]] = {each.name: {task: [] for task in prompts} for each in contenders}
    growth: dict[str, list[float]] = {}
    for repetition, task in itertools.product(range(settings.repetitions), prompts):
        progress(f"{task}: repetition {repetition + 1} of {settings.repetitions}")
        rows = _take_turns(target, prompts[task], contenders, settings)
        for name, row in rows.items():
            runs[name][task].append(row)
        for name, measured in _verify_growth(target, rows).items():
            growth.setdefault(name, []).append(measured)
    progress("checking every answer")
    greedy = settings.temperature == 0
    return Results(
        runs=runs,
        differences={
            name: _differences(target, prompts, runs[STOCK], by_task) if greedy else {}
            for name, by_task in runs.items()
        },
        accuracy={name: _accuracy(processor, prompts, by_task) for name, by_task in runs.items()},
        growth={name: median(measured) for name, measured in growth.items()},
    )


def _prompts(target: PreTrainedModel, processor: Any, task: str, settings: Settings) -> list[Prompt]:
    chosen = samples(settings.split, task=task, n=settings.samples)
    return [Prompt(sample, prepare(processor, sample["messages"], sample["image"], target)) for sample in chosen]


def _take_turns(
    target: PreTrainedModel, prompts: Sequence[Prompt], contenders: Sequence[Contender], settings: Settings
) -> dict[str, list[Run]]:
    """One run of every prompt by every contender; who comes first changes from prompt to prompt."""
    rows: dict[str, list[Run]] = {contender.name: [] for contender in contenders}
    for index, prompt in enumerate(prompts):
        shift = index % len(contenders)
        for contender in (*contenders[shift:], *contenders[:shift]):
            torch.manual_seed(index)  # sampled answers are the same in every repetition
            run = answer(target, prompt.inputs, contender, settings.max_new_tokens, settings.temperature)
            rows[contender.name].append(run)
    return rows


def _differences(
    target: PreTrainedModel,
    prompts: dict[str, list[Prompt]],
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


def _accuracy(processor: Any, prompts: dict[str, list[Prompt]], runs: dict[str, list[list[Run]]]) -> dict[str, float]:
    """Mean grade by task."""
    accuracy = {}
    for task, members in prompts.items():
        texts = processor.batch_decode([run.tokens for run in runs[task][0]], skip_special_tokens=True)
        grades = [grade(prompt.sample, text)["score"] for prompt, text in zip(members, texts, strict=True)]
        accuracy[task] = sum(grades) / len(grades)
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
