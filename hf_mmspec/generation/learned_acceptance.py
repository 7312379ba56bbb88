"""How often the target takes a drafter's proposals, as the rounds of a request show it.

Counts what happened to drafts; knows neither models nor seconds. What a request learnt is kept for the next ones in
`acceptance_memory.py`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from hf_mmspec.modeling import DraftTree

from .budget import Acceptance

_DOUBT = 1.0  # variance of the shift before the first trial
_DRIFT = 0.003  # what is added to it by each trial: the last sixty or so count
_PRIOR_TRIALS = 16.0  # a depth's own rate weighs as much as the shifted one after so many trials...
_FORGETTING = 0.99  # ... of which older ones count less
_LEAST, _MOST = 0.002, 0.998


@dataclass(frozen=True)
class Trial:
    """What became of the children of one accepted node.

    Args:
        depth: of the children, from 1.
        offered: how many there were.
        taken: rank (from 1) of the one that the target took; None where it took none of them.
    """

    depth: int
    offered: int
    taken: int | None


def trials_of(tree: DraftTree, path: Sequence[int], is_cut: bool = False, forced: int = 0) -> list[Trial]:
    """The trials of a round.

    Args:
        path: nodes that were accepted, root first.
        is_cut: the answer ended behind the last of them, so that its children were never asked for.
        forced: levels of a run below the root that was known without drafting: it says nothing about a drafter.
    """
    children = tree.children()
    trials = []
    for depth, node in enumerate(path[:-1] if is_cut else path, start=1):
        siblings = list(children[node].values())  # in the order of their rank
        if siblings and depth > forced:
            taken = siblings.index(path[depth]) + 1 if depth < len(path) else None
            trials.append(Trial(depth, len(siblings), taken))
    return trials


@dataclass
class _Rate:
    """A share, from trials that are slowly forgotten."""

    hits: float = 0.0
    trials: float = 0.0

    def count(self, hit: bool) -> None:
        self.hits = _FORGETTING * self.hits + hit
        self.trials = _FORGETTING * self.trials + 1

    def with_prior(self, prior: float) -> float:
        return (_PRIOR_TRIALS * prior + self.hits) / (_PRIOR_TRIALS + self.trials)


@dataclass
class LearnedAcceptance:
    """An `Acceptance` that follows what is accepted.

    One shift of the log-odds of all first choices follows within a few rounds (another domain, another temperature);
    each depth has a rate of its own, and each further choice one among the rounds that missed the better ones, for
    which it takes longer.

    Args:
        start: what is known before the first round.
    """

    start: Acceptance
    trials: int = 0
    _shift: float = 0.0
    _variance: float = _DOUBT
    _first: dict[int, _Rate] = field(default_factory=dict)
    _further: dict[int, _Rate] = field(default_factory=dict)

    def observe(self, trials: Sequence[Trial]) -> None:
        """Learn from a round."""
        for trial in trials:
            self.trials += 1
            self._follow(trial.depth, trial.taken == 1)
            for rank in range(2, (trial.taken or trial.offered) + 1):
                self._further.setdefault(rank, _Rate()).count(trial.taken == rank)

    def start_again(self) -> None:
        """Drafting pays where it did not: what was learnt meanwhile is of another part of the answer."""
        self._shift, self._variance = max(self._shift, 0.0), _DOUBT
        self._first.clear()
        self._further.clear()

    @property
    def acceptance(self) -> Acceptance:
        """As it is believed to be now."""
        return Acceptance(
            tuple(self._ranks(depth, ranks) for depth, ranks in enumerate(self.start.by_rank, start=1)),
            self.start.max_levels,
        )

    @property
    def first_choices(self) -> list[float]:
        """The rates of first choices by depth, always between 0 and 1."""
        return [self._best(row, ranks[0]) for row, ranks in enumerate(self.start.by_rank, start=1)]

    def _follow(self, depth: int, hit: bool) -> None:
        """A step of an extended Kalman filter for the shift of the log-odds."""
        row = min(depth, len(self.start.by_rank))
        rate = _shifted(self.start.by_rank[row - 1][0], self._shift)
        information = rate * (1 - rate)
        self._variance = 1 / (1 / (self._variance + _DRIFT) + information)
        self._shift += self._variance * (hit - rate)
        self._first.setdefault(row, _Rate()).count(hit)

    def _best(self, row: int, before: float) -> float:
        shifted = _shifted(before, self._shift)
        return self._first[row].with_prior(shifted) if row in self._first else shifted

    def _ranks(self, row: int, before: tuple[float, ...]) -> tuple[float, ...]:
        """Rates of all ranks: each further one takes its share of what the better ones left."""
        best = self._best(row, before[0])
        rates, left, left_before = [best], 1 - best, 1 - before[0]
        for rank, rate_before in enumerate(before[1:], start=2):
            share = rate_before / left_before if left_before > 0 else 0.0
            if rank in self._further:
                share = self._further[rank].with_prior(share)
            rates.append(left * min(share, 1.0))
            left, left_before = left - rates[-1], left_before - rate_before
        return tuple(rates)


def _shifted(rate: float, shift: float) -> float:
    rate = min(max(rate, _LEAST), _MOST)
    return 1 / (1 + math.exp(-(math.log(rate / (1 - rate)) + shift)))
