"""From runs to numbers: acceptance, speed-ups with intervals, shares of time.

Pure arithmetic on `Run`s; the definitions in words, which every report carries, are in `definitions.py`.
"""

import math
import random
from collections.abc import Callable, Sequence
from operator import itemgetter
from statistics import median
from typing import Any

from hf_mmspec.generation import Speculation

from .acceptance import from_rounds
from .contenders import Run

_DRAWS = 1000


def acceptance(runs: Sequence[Run]) -> dict[str, Any]:
    """L and its parts: from the statistics of our loop, or from the emissions of the stock one (L only)."""
    speculations = [run.speculation for run in runs if run.speculation is not None]
    found = from_rounds([row for each in speculations for row in each.accepted_by_row])
    if not found["rounds"]:
        forwards = sum(run.emissions - 1 for run in runs)
        length = sum(run.decode_tokens for run in runs) / forwards if forwards else None
        return {"acceptance_length": length, "accepted_drafts": None if length is None else length - 1}
    return {**found, "drafted_per_round": sum(sum(each.drafted) for each in speculations) / found["rounds"]}


def round_shares(speculations: Sequence[Speculation]) -> dict[str, float]:
    """Shares of draft, verify and other in the decoding time."""
    totals = {part: sum(each.seconds[part] for each in speculations) for part in ("draft", "verify", "other")}
    whole = sum(totals.values())
    return {part: seconds / whole for part, seconds in totals.items()} if whole else totals


def decode_rate(runs: Sequence[Run]) -> float:
    """Decode-only tokens per second, totals over `runs`."""
    seconds = sum(run.decode_seconds for run in runs)
    return sum(run.decode_tokens for run in runs) / seconds if seconds else float("nan")


def end_to_end_rate(runs: Sequence[Run]) -> float:
    """Tokens per second of whole calls, totals over `runs`."""
    return sum(run.new_tokens for run in runs) / sum(run.seconds for run in runs)


def speedup(
    rate: Callable[[Sequence[Run]], float], runs: Sequence[Sequence[Run]], baseline: Sequence[Sequence[Run]]
) -> float:
    """Ratio of rates, the median over repetitions.

    Args:
        runs, baseline: `[repetition][call]`, the same prompts in the same order.
    """
    return median(rate(ours) / rate(theirs) for ours, theirs in zip(runs, baseline, strict=True))


def interval(
    rate: Callable[[Sequence[Run]], float], runs: Sequence[Sequence[Run]], baseline: Sequence[Sequence[Run]]
) -> tuple[float, float]:
    """95 % interval of `speedup` with the same arguments: calls are drawn, then repetitions of each, since answering
    a prompt again is no second prompt."""
    pairs = [list(zip(ours, theirs, strict=True)) for ours, theirs in zip(runs, baseline, strict=True)]
    calls = list(zip(*pairs, strict=True))
    draw = random.Random(0)
    ratios = []
    for _ in range(_DRAWS):
        sample = [pair for call in draw.choices(calls, k=len(calls)) for pair in draw.choices(call, k=len(call))]
        ratios.append(rate([pair[0] for pair in sample]) / rate([pair[1] for pair in sample]))
    ratios.sort(key=lambda ratio: (math.isnan(ratio), ratio))
    return ratios[int(0.025 * _DRAWS)], ratios[int(0.975 * _DRAWS)]


def slowest(runs: Sequence[Sequence[Run]], baseline: Sequence[Sequence[Run]]) -> tuple[int, float] | None:
    """The call with the smallest decode speed-up, and the speed-up, the median over repetitions; None where no answer
    went on after its first emission. Arguments as of `speedup`."""
    calls = zip(zip(*runs, strict=True), zip(*baseline, strict=True), strict=True)
    ratios = [speedup(decode_rate, [[run] for run in ours], [[run] for run in theirs]) for ours, theirs in calls]
    return min(((i, ratio) for i, ratio in enumerate(ratios) if math.isfinite(ratio)), key=itemgetter(1), default=None)


def break_even(speculations: Sequence[Speculation], stock: Sequence[Run]) -> float | None:
    """L at which a round of this cost would neither win nor lose against the `stock` runs."""
    return _in_stock_steps(speculations, ("draft", "verify", "other"), stock)


def verify_growth(speculations: Sequence[Speculation], stock: Sequence[Run]) -> float | None:
    """v: what a round spends in the target's forward, in steps of the `stock` runs."""
    return _in_stock_steps(speculations, ("verify",), stock)


def _in_stock_steps(speculations: Sequence[Speculation], parts: Sequence[str], stock: Sequence[Run]) -> float | None:
    """Seconds per round in `parts`, over stock seconds per step, which gives each row of a batch a token."""
    rounds, seconds = sum(each.rounds for each in speculations), sum(run.decode_seconds for run in stock)
    if not rounds:
        return None
    steps_per_second = sum(max(map(len, run.rows)) - 1 for run in stock) / seconds if seconds else math.nan
    return sum(each.seconds[part] for each in speculations for part in parts) / rounds * steps_per_second
