"""Numbers by kind of prompt: short and long answers, few and many image tokens.

Groups prompts and hands the groups to `metrics.py`; how the groups are made is the word "strata" of the definitions.
"""

from collections.abc import Sequence
from itertools import chain
from typing import Any

from .bench import Results
from .contenders import STOCK, Run
from .metrics import acceptance, decode_rate, end_to_end_rate, speedup


def strata(results: Results, name: str) -> dict[str, list[dict[str, Any]]]:
    """By `answer_length` and by `image_tokens` a list of groups, each with `from`, `to`, `n`, L and both speed-ups.
    Empty lists where prompts were answered in batches: time is known of whole batches only."""
    tasks = list(results.image_tokens)
    ours, stock = joined(results.runs[name], tasks), joined(results.runs[STOCK], tasks)
    if any(len(run.rows) > 1 for run in stock[0]):
        return {"answer_length": [], "image_tokens": []}
    by = {
        "answer_length": [len(run.tokens) for run in stock[0]],
        "image_tokens": list(chain.from_iterable(results.image_tokens.values())),
    }
    return {kind: [_numbers(values, group, ours, stock) for group in terciles(values)] for kind, values in by.items()}


def terciles(values: Sequence[int]) -> list[list[int]]:
    """Indices of the values in three groups of about equal size, small values first; equal ones stay together."""
    ordered = sorted(values)
    low, high = ordered[len(values) // 3], ordered[2 * len(values) // 3]
    groups: list[list[int]] = [[], [], []]
    for index, value in enumerate(values):
        groups[(value >= low) + (value >= high)].append(index)
    return [group for group in groups if group]


def joined(by_task: dict[str, list[list[Run]]], tasks: Sequence[str]) -> list[list[Run]]:
    """`[repetition][call]` over several tasks."""
    return [list(chain(*rows)) for rows in zip(*(by_task[task] for task in tasks), strict=True)]


def _numbers(
    values: Sequence[int], group: Sequence[int], ours: Sequence[Sequence[Run]], stock: Sequence[Sequence[Run]]
) -> dict[str, Any]:
    runs, baseline = ([[row[index] for index in group] for row in rows] for rows in (ours, stock))
    return {
        "from": min(values[index] for index in group),
        "to": max(values[index] for index in group),
        "n": len(group),
        "acceptance_length": acceptance(list(chain(*runs)))["acceptance_length"],
        "decode_speedup": speedup(decode_rate, runs, baseline),
        "end_to_end_speedup": speedup(end_to_end_rate, runs, baseline),
    }
