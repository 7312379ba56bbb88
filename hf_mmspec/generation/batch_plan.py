"""Decides round by round how much is drafted for the rows of a batch that are left: fewer rows may draft more.

One `LearningPlan` for each number of rows, with what so many rows cost; what is accepted is learnt over all of them.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from hf_mmspec.modeling import DraftBudget

from .budget import Wishes
from .controller import LearningPlan, Round
from .costs import ForwardCosts, Points
from .learned_acceptance import LearnedAcceptance
from .learned_costs import LearnedCosts
from .switch import Switch


@dataclass(frozen=True)
class BatchCosts:
    """What forwards cost by number of rows, from two measurements; between them a row costs what it costs on average.

    Args:
        rows: of `many`, at least 2.
        one, many: costs of one row, and of `rows` rows, by tokens of each row.
    """

    rows: int
    one: ForwardCosts
    many: ForwardCosts

    def of(self, rows: int) -> ForwardCosts:
        """Of `rows` rows."""
        share = (rows - 1) / (self.rows - 1)

        def between(one: float, many: float) -> float:
            return one + share * (many - one)

        def points(one: Callable[[int], float], many: Callable[[int], float], sizes: Points) -> Points:
            return tuple((size, between(one(size), many(size))) for size, _ in sizes)

        return ForwardCosts(
            points(self.one.verify_seconds, self.many.verify_seconds, self.many.verify),
            between(self.one.first_level, self.many.first_level),
            points(self.one.level_seconds, self.many.level_seconds, self.many.level),
            between(self.one.overhead, self.many.overhead),
        )


class BatchPlan:
    """Follows the rounds of a batch.

    Args:
        costs: by number of rows.
        acceptance: what is known before the first round; follows the drafts of all rows.
        make_switch: a switch for each number of rows, since drafting may pay for few and not for many; None where
            drafting was asked for.
        wishes, greedy: as in `LearningPlan`.
        when_ended: is told what was accepted.
    """

    may_draft = True
    most_tokens = LearningPlan.most_tokens

    def __init__(
        self,
        costs: BatchCosts,
        acceptance: LearnedAcceptance,
        make_switch: Callable[[], Switch] | None,
        wishes: Wishes,
        greedy: bool,
        when_ended: Callable[[LearnedAcceptance], None] = lambda acceptance: None,
    ):
        self._costs, self._acceptance, self._make_switch = costs, acceptance, make_switch
        self._wishes, self._greedy, self._when_ended = wishes, greedy, when_ended
        self._rows, self._plan = costs.rows, self._plan_for(costs.rows, pace=1.0)

    def next_budget(self, rows: int = 1) -> DraftBudget:
        """What each of `rows` rows may draft in the next round."""
        if rows != self._rows:
            self._rows, self._plan = rows, self._plan_for(rows, self._plan.costs.pace)
        return self._plan.next_budget()

    def learn(self, round_: Round) -> None:
        """Take in what a round showed."""
        self._plan.learn(replace(round_, emitted=round_.emitted / self._rows))

    def end(self, is_quiet: bool = True) -> None:
        """All answers are finished."""
        self._when_ended(self._acceptance)

    def _plan_for(self, rows: int, pace: float) -> LearningPlan:
        switch = None if self._make_switch is None else self._make_switch()
        costs = LearnedCosts(self._costs.of(rows), pace=pace, may_explore=False)
        return LearningPlan(costs, self._acceptance, switch, self._wishes, self._greedy, is_padded=rows > 1)
