"""The protocol: every contender answers every prompt, taking turns, several times; then every answer is checked.

Runs and collects; `metrics.py` makes numbers of it and `report.py` a document.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch
from transformers import PreTrainedModel

from hf_mmspec.demo import grade
from hf_mmspec.generation.acceptance_memory import forget_experience
from hf_mmspec.generation.costs import ForwardCosts, measure_verify

from .batches import Batch, in_batches
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
        task_max_new_tokens: the same for tasks that have a limit of their own.
        temperatures: each is a run of its own; 0 is greedy decoding.
        split: of the data; None for its own default.
        batch: prompts of one task that a call of `generate` answers together.
        together: groups of tasks that get a row of the report of their own.
        budgets: draft budgets that each drafter is measured with besides its usual one.
    """

    data: tuple[str, ...] = (EMBEDDED,)
    tasks: tuple[str, ...] | None = None
    samples: int = 12
    repetitions: int = 3
    max_new_tokens: int = 160
    temperatures: tuple[float, ...] = (0.0,)
    split: str | None = None
    batch: int = 1
    together: tuple[tuple[str, ...], ...] = ()
    budgets: tuple[str, ...] = ()
    task_max_new_tokens: Mapping[str, int] = field(default_factory=dict)

    def check_tasks(self, tasks: Iterable[str]) -> None:
        """Raises ValueError where something is said about a task that is none of `tasks`."""
        known = list(tasks)
        for task in (*self.task_max_new_tokens, *itertools.chain(*self.together)):
            if task not in known:
                raise ValueError(f"the task {task!r} is not measured: the tasks are {', '.join(known)}")


@dataclass
class Results:
    """All runs at one temperature, and what was checked on them.

    Args:
        runs: `runs[contender][task]` is `[repetition][call]`; a call answers a prompt, or a batch of them.
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

    @classmethod
    def empty(cls, contenders: Sequence[str], temperature: float) -> "Results":
        """Nothing measured yet."""

        def by_name() -> dict[str, Any]:
            return {name: {} for name in contenders}

        return cls(temperature, by_name(), by_name(), by_name(), growth={}, image_tokens={})


def run_bench(
    target: PreTrainedModel,
    processor: Any,
    contenders: Sequence[Contender],
    prompts: PromptsByTask,
    settings: Settings,
    temperature: float = 0.0,
    progress: Callable[[str], None] = lambda text: None,
    keep: Callable[[Results], None] = lambda results: None,
) -> Results:
    """Measure `contenders`, of which the first is the stock baseline, on `target`.

    Args:
        progress: told in a few words what is being run.
        keep: given the results so far, whenever the tasks in them were measured equally often: a bench takes long.
    """
    batches = {task: in_batches(target, processor, each, settings.batch) for task, each in prompts.items()}
    for contender, batch in itertools.product(contenders, _one_of_each_size(batches)):
        # kernels, memory and the automatic draft budget are paid for outside of the clock
        answer(target, batch.inputs, contender, _WARM_UP_TOKENS, temperature)
    results = Results.empty([each.name for each in contenders], temperature)
    growth: dict[str, list[float]] = {}
    for repetition, task in itertools.product(range(settings.repetitions), prompts):
        progress(f"{task} at T = {temperature:g}: repetition {repetition + 1} of {settings.repetitions}")
        limit = settings.task_max_new_tokens.get(task, settings.max_new_tokens)
        if task == next(iter(prompts)):
            forget_experience()  # what the repetition before has learnt of these very prompts
        taken = _take_turns(target, batches[task], contenders, limit, temperature, first=repetition)
        _add(results, task, prompts[task], taken, processor)
        if temperature == 0:
            _check(results, task, batches[task], target)
        for name, measured in _verify_growth(target, taken, settings.batch).items():
            growth.setdefault(name, []).append(measured)
        results.growth = {name: median(measured) for name, measured in growth.items()}
        if repetition == 0 or task == list(prompts)[-1]:
            keep(results)
    return results


def _add(
    results: Results, task: str, prompts: Sequence[Prompt], taken: Mapping[str, list[Run]], processor: Any
) -> None:
    """A repetition more of a task; grades are the first one's."""
    results.image_tokens[task] = [prompt.image_tokens for prompt in prompts]
    for name, calls in taken.items():
        results.runs[name].setdefault(task, []).append(calls)
        if task not in results.accuracy[name]:
            results.accuracy[name][task] = _accuracy(processor, prompts, calls)


def _check(results: Results, task: str, batches: Sequence[Batch], target: PreTrainedModel) -> None:
    """Compare the newest repetition of a task with the baseline's first, since repeating greedy decoding must change
    nothing. A prompt's first difference stays."""
    baseline = results.runs[STOCK][task][0]
    for name, by_task in results.runs.items():
        found = _differences(target, batches, baseline, by_task[task][-1])
        earlier = results.differences[name].get(task, [None] * len(found))
        results.differences[name][task] = [old or new for old, new in zip(earlier, found, strict=True)]


def _one_of_each_size(batches: Mapping[str, Sequence[Batch]]) -> list[Batch]:
    return list({len(each.prompts): each for each in reversed(list(itertools.chain(*batches.values())))}.values())


def _take_turns(
    target: PreTrainedModel,
    batches: Sequence[Batch],
    contenders: Sequence[Contender],
    max_new_tokens: int,
    temperature: float,
    first: int = 0,
) -> dict[str, list[Run]]:
    """One call for every batch by every contender, `first` beginning; who does changes from batch to batch."""
    calls: dict[str, list[Run]] = {contender.name: [] for contender in contenders}
    for index, batch in enumerate(batches):
        shift = (index + first) % len(contenders)
        for contender in (*contenders[shift:], *contenders[:shift]):
            torch.manual_seed(index)  # sampled answers are the same in every repetition
            calls[contender.name].append(answer(target, batch.inputs, contender, max_new_tokens, temperature))
    return calls


def _differences(
    target: PreTrainedModel, batches: Sequence[Batch], baseline: Sequence[Run], ours: Sequence[Run]
) -> list[Difference | None]:
    """The first difference of every prompt. Rows of a batch are compared with the same rows of the baseline's; the
    target judges each of them alone."""
    return [
        find_difference(target, prompt.inputs, baseline[call].rows[row], ours[call].rows[row])
        for call, batch in enumerate(batches)
        for row, prompt in enumerate(batch.prompts)
    ]


def _accuracy(processor: Any, prompts: Sequence[Prompt], calls: Sequence[Run]) -> float | None:
    """Mean grade; None where some prompt has no grading."""
    grading = [prompt.conversation.grading for prompt in prompts]
    texts = processor.batch_decode([row for run in calls for row in run.rows], skip_special_tokens=True)
    grades = [grade(dict(each), text)["score"] for each, text in zip(grading, texts, strict=True) if each]
    return sum(grades) / len(grades) if len(grades) == len(prompts) else None


def _verify_growth(target: PreTrainedModel, taken: dict[str, list[Run]], batch: int = 1) -> dict[str, float]:
    """v at the mean tree size of each contender that drafts with our loop, for `batch` rows."""
    sizes = {name: size for name, runs in taken.items() if (size := _mean_tree_size(runs)) is not None}
    if not sizes:
        return {}
    # A slow target has no time for all sizes of a comparison of many budgets. What is missing is interpolated, so the
    # largest comes early: beyond the measured ones there would only be a guess.
    order = (1, *sorted(set(sizes.values()) - {1}, reverse=True))
    seconds = measure_verify(target, order, time_limit=_VERIFY_SECONDS, rows=batch)
    costs = ForwardCosts(tuple(sorted(seconds.items())), first_level=0.0, level=())
    return {name: costs.growth(size) for name, size in sizes.items()}


def _mean_tree_size(runs: list[Run]) -> int | None:
    """Tokens per verification of a row, root included, rounded."""
    drafted = [count for run in runs if run.speculation for count in run.speculation.drafted]
    return round(sum(drafted) / len(drafted)) + 1 if drafted else None
