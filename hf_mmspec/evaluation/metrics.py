"""From runs to numbers: acceptance, speed-ups with intervals, shares of time.

Pure arithmetic on `Run`s; the definitions in words, which every report carries, are `DEFINITIONS`.
"""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from statistics import median
from typing import Any

from hf_mmspec.generation import Speculation

from .contenders import Run

DEFINITIONS = {
    "acceptance_length": "L: tokens emitted per target forward after the prefill, the target's own token included, "
    "over all rounds of all prompts and repetitions, each round counted once. 1.0 is plain decoding.",
    "accepted_drafts": "Mean number of drafted tokens kept per round: L - 1. Tables of the ViSpec paper print this.",
    "acceptance_by_position": "Share of rounds that accepted draft i among those that accepted draft i - 1. The last "
    "round of each answer is left out, since the end of the answer cuts it.",
    "accepted_histogram": "Number of rounds by number of accepted drafts.",
    "decode_speedup": "Decode-only tokens/s over that of stock `generate` in the same repetition, totals over all "
    "prompts; median over repetitions. Decode-only: tokens emitted after the first emission, over the time from the "
    "first emission to the last (seen by a streamer), so image encoding and prefill are outside.",
    "end_to_end_speedup": "The same with all new tokens over the time of the whole `generate` call, image encoding "
    "and prefill included; image preprocessing and tokenisation are outside on both sides.",
    "interval": "95 % bootstrap over prompts and repetitions (1,000 draws, fixed seed).",
    "verify_growth": "v: the target's forward over as many tokens as the mean tree has (root included) relative to "
    "one token, over a cache of 300 tokens, in the same process; the median of measurements between the tasks.",
    "loop_efficiency": "decode_speedup * verify_growth / acceptance_length: 1.0 means that drafting and host work "
    "cost nothing.",
    "break_even_acceptance_length": "L at which a round would take as long as decoding its tokens one by one: seconds "
    "per round over stock seconds per token. Below it speculation loses.",
    "round_shares": "Shares of the decoding time: draft (the drafter), verify (the target's forwards over trees), "
    "other (acceptance, processors, stopping, caches, streaming).",
    "identical": "Every answer has the same token ids as stock `generate`, or parts from it at a near tie: run again "
    "on the common prefix, the target gives both tokens processed scores within epsilon of its best one: 0.25 in "
    "bfloat16 (two of its steps between 16 and 32), 4e-6 in float32. `identical_samples` counts the strictly equal, "
    "`near_ties` the others, `largest_gap` is the largest distance that was found.",
    "peak_memory_ratio": "Peak resident memory while answering, in a fresh process each, over that of stock "
    "`generate`; on a GPU, peak allocated memory.",
}
_DRAWS = 1000


def acceptance(runs: Sequence[Run]) -> dict[str, Any]:
    """L and its parts: from the statistics of our loop, or from the emissions of the stock one (L only)."""
    speculations = [run.speculation for run in runs if run.speculation is not None]
    rounds = [accepted for each in speculations for accepted in each.accepted]
    if not rounds:
        forwards = sum(run.emissions - 1 for run in runs)
        length = sum(run.decode_tokens for run in runs) / forwards if forwards else None
        return {"acceptance_length": length, "accepted_drafts": None if length is None else length - 1}
    uncut = [accepted for each in speculations for accepted in each.accepted[:-1]]
    return {
        "acceptance_length": 1 + sum(rounds) / len(rounds),
        "accepted_drafts": sum(rounds) / len(rounds),
        "acceptance_by_position": by_position(uncut),
        "accepted_histogram": {str(count): times for count, times in sorted(Counter(rounds).items())},
        "rounds": len(rounds),
        "drafted_per_round": sum(sum(each.drafted) for each in speculations) / len(rounds),
    }


def by_position(accepted: Sequence[int]) -> list[float]:
    """Conditional acceptance at position 1, 2, ...: `P(at least i accepted | at least i - 1 accepted)`."""
    reached = [sum(count >= i for count in accepted) for i in range(max(accepted, default=0) + 1)]
    return [now / before for before, now in pairwise(reached)]


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
    return sum(len(run.tokens) for run in runs) / sum(run.seconds for run in runs)


def speedup(
    rate: Callable[[Sequence[Run]], float], runs: Sequence[Sequence[Run]], baseline: Sequence[Sequence[Run]]
) -> tuple[float, tuple[float, float]]:
    """Ratio of rates, and its 95 % interval.

    Args:
        runs, baseline: `[repetition][prompt]`, the same prompts in the same order.
    """
    ratio = median(rate(ours) / rate(theirs) for ours, theirs in zip(runs, baseline, strict=True))
    pairs = [pair for ours, theirs in zip(runs, baseline, strict=True) for pair in zip(ours, theirs, strict=True)]
    draw = random.Random(0)
    ratios = []
    for _ in range(_DRAWS):
        sample = draw.choices(pairs, k=len(pairs))
        ratios.append(rate([pair[0] for pair in sample]) / rate([pair[1] for pair in sample]))
    ratios.sort()
    return ratio, (ratios[int(0.025 * _DRAWS)], ratios[int(0.975 * _DRAWS)])


def break_even(speculations: Sequence[Speculation], stock: Sequence[Run]) -> float | None:
    """L at which a round of this cost would neither win nor lose against the `stock` runs."""
    rounds = sum(each.rounds for each in speculations)
    if not rounds:
        return None
    seconds = sum(each.seconds[part] for each in speculations for part in ("draft", "verify", "other"))
    return seconds / rounds * decode_rate(stock)
