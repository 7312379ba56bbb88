"""The numbers of one contender over some tasks, as plain data.

Puts together what `bench.py` collected and `metrics.py` makes of it; writes nothing.
"""

from collections.abc import Sequence
from dataclasses import asdict
from itertools import chain
from statistics import median
from typing import Any

from .bench import Results
from .contenders import STOCK
from .identity import Difference
from .metrics import (
    acceptance,
    break_even,
    decode_rate,
    end_to_end_rate,
    interval,
    round_shares,
    slowest,
    speedup,
    verify_growth,
)
from .repetition import is_repetitive
from .strata import joined


def make_row(
    results: Results, name: str, tasks: Sequence[str], memory_ratio: float | None, label: str = "all"
) -> dict[str, Any]:
    """The numbers of contender `name` over `tasks`, see `DEFINITIONS` for the words.

    Args:
        label: what several tasks are called.
    """
    runs, stock = joined(results.runs[name], tasks), joined(results.runs[STOCK], tasks)
    every_run, every_stock = list(chain(*runs)), list(chain(*stock))
    speculations = [run.speculation for run in every_run if run.speculation is not None]
    answers = [answer for run in runs[0] for answer in run.rows]
    decode = speedup(decode_rate, runs, stock)
    row = {
        "drafter": name,
        "task": tasks[0] if len(tasks) == 1 else label,
        "temperature": results.temperature,
        "batch": max(len(run.rows) for run in runs[0]),
        "n": len(answers),
        "repetitions": len(runs),
        **acceptance(every_run),
        "decode_speedup": decode,
        "decode_speedup_interval": interval(decode_rate, runs, stock),
        "slowest_prompt": _slowest_prompt(results, name, tasks),
        "end_to_end_speedup": speedup(end_to_end_rate, runs, stock),
        "end_to_end_speedup_interval": interval(end_to_end_rate, runs, stock),
        "decode_tokens_per_second": decode_rate(every_run),
        "stock_decode_tokens_per_second": decode_rate(every_stock),
        "time_to_first_token": median(run.time_to_first_token for run in every_run),
        "stock_time_to_first_token": median(run.time_to_first_token for run in every_stock),
        "mean_new_tokens": sum(map(len, answers)) / len(answers),
        "repetitive_answers": sum(map(is_repetitive, answers)),
        **_identity(results, name, tasks),
        "accuracy": _mean([results.accuracy[name][task] for task in tasks]),
        "baseline_accuracy": _mean([results.accuracy[STOCK][task] for task in tasks]),
        "peak_memory_ratio": memory_ratio,
        "is_faster": decode > 1,
    }
    if any(each.rounds for each in speculations):
        shares, measured = round_shares(speculations), results.growth[name]
        row |= {
            "round_shares": shares,
            "verify_growth": verify_growth(speculations, every_stock),
            "loop_efficiency": shares["verify"],
            "verify_growth_measured": measured,
            "loop_efficiency_measured": decode * measured / row["acceptance_length"],
            "break_even_acceptance_length": break_even(speculations, every_stock),
        }
    return row


def _slowest_prompt(results: Results, name: str, tasks: Sequence[str]) -> dict[str, Any] | None:
    """Where it is, and its decode speed-up."""
    found = slowest(joined(results.runs[name], tasks), joined(results.runs[STOCK], tasks))
    if found is None:
        return None
    places = [(task, number) for task in tasks for number in range(len(results.runs[name][task][0]))]
    task, number = places[found[0]]
    return {"task": task, "number": number, "decode_speedup": found[1]}


def _identity(results: Results, name: str, tasks: Sequence[str]) -> dict[str, Any]:
    """What the comparison of every prompt with the baseline gave; null where answers are sampled."""
    if results.temperature > 0:
        return {"identical": None}
    every: list[Difference | None] = [each for task in tasks for each in results.differences[name][task]]
    found = [difference for difference in every if difference is not None]
    return {
        "identical": all(difference.is_near_tie for difference in found),
        "identical_samples": len(every) - len(found),
        "near_ties": sum(difference.is_near_tie for difference in found),
        "largest_gap": max((difference.gap for difference in found), default=0.0),
        "failures": sum(not difference.is_near_tie for difference in found),
        "differences": [asdict(difference) for difference in found],
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None
