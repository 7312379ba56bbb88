"""Acceptance from counts: how many drafts each round kept, as numbers.

Plain arithmetic on lists; knows neither models nor clocks, so that `acceptance_length.py` may share it.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

METRIC = str(Path(__file__).with_name("acceptance_length.py"))  # what `evaluate.load` takes


def from_rounds(accepted: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Acceptance over all rounds of all answers.

    Args:
        accepted: for each answer the drafts that were kept in each of its rounds, the target's own token not counted
            (`Speculation.accepted`).

    Returns:
        `acceptance_length` (L, the target's own token counted), `accepted_drafts` (L - 1), `acceptance_by_position`,
        `accepted_histogram` and `rounds`; the first two are None where there was no round.
    """
    rounds = list(chain.from_iterable(accepted))
    mean = sum(rounds) / len(rounds) if rounds else None
    return {
        "acceptance_length": None if mean is None else 1 + mean,
        "accepted_drafts": mean,
        "acceptance_by_position": by_position([count for answer in accepted for count in answer[:-1]]),
        "accepted_histogram": {str(count): times for count, times in sorted(Counter(rounds).items())},
        "rounds": len(rounds),
    }


def by_position(accepted: Sequence[int]) -> list[float]:
    """Conditional acceptance at position 1, 2, ...: `P(at least i accepted | at least i - 1 accepted)`."""
    reached = [sum(count >= i for count in accepted) for i in range(max(accepted, default=0) + 1)]
    return [now / before for before, now in pairwise(reached)]
