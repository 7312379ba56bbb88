"""Decides round by round how much is drafted: from what the rounds so far cost and what became of their drafts.

The parts are elsewhere: `learned_costs.py`, `learned_acceptance.py`, `budget.py` (the choice) and `switch.py` (on or
off). A plan belongs to one request. Nothing here changes an answer: what is proposed depends on earlier rounds only.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Protocol

from hf_mmspec.modeling import DraftBudget

from .budget import Wishes, choose_budget
from .learned_acceptance import LearnedAcceptance, Trial
from .learned_costs import LearnedCosts, RoundCosts
from .switch import Switch

PLAIN = DraftBudget(0, 1, 1)
# Tokens of a try while drafting is off: enough to show that it would pay again, and cheap.
_TRIED = range(2, 5)
_LEAST_WASTE = 0.05  # of a step; less cannot be told from noise
# The choice is made again when what it rests on has moved by these shares: the odds of acceptance, relative costs. It
# takes a millisecond, so not in every round, and less often the longer the request.
_ODDS_MOVED, _COSTS_MOVED = 0.15, 0.06
_LEAST_BETWEEN, _MOST_BETWEEN = 2, 8  # rounds
# Wide enough to fill a tree of any surveyed size.
_SURVEY_TOP_K = 4


@dataclass(frozen=True)
class Round:
    """What happened in a round.

    Args:
        costs: its seconds and sizes.
        trials: what became of its drafts.
        emitted: tokens, without those that were forced; of several rows, each row's on average.
        forced: nodes of a run that was known without drafting.
        is_tail: the answer's limit or end cut it short, so that it says nothing about other rounds.
        reading: seconds in which the drafter read the prompt before it.
    """

    costs: RoundCosts
    trials: Sequence[Trial]
    emitted: float
    forced: int = 0
    is_tail: bool = False
    reading: float = 0.0


class Plan(Protocol):
    """How much each round of a request drafts."""

    @property
    def most_tokens(self) -> int: ...

    @property
    def may_draft(self) -> bool: ...

    def next_budget(self, rows: int = 1) -> DraftBudget: ...

    def learn(self, round_: Round) -> None: ...

    def end(self, is_quiet: bool = True) -> None: ...


@dataclass(frozen=True)
class FixedPlan:
    """The same budget in every round, and nothing to learn: all of it was asked for."""

    budget: DraftBudget

    @property
    def most_tokens(self) -> int:
        return self.budget.total_tokens

    @property
    def may_draft(self) -> bool:
        return self.budget.depth > 0

    def next_budget(self, rows: int = 1) -> DraftBudget:
        return self.budget

    def learn(self, round_: Round) -> None:
        pass

    def end(self, is_quiet: bool = True) -> None:
        pass


class LearningPlan:
    """Follows the rounds.

    Args:
        costs, acceptance: what is known before the first round; both follow.
        switch: None where drafting was asked for, so that it stays on.
        wishes: the parts of the budget that stay as asked.
        greedy, is_padded: as in `choose_budget`.
        when_ended: is told what was learnt; its argument says whether the machine had time for this request alone.
    """

    may_draft = True
    most_tokens = 64

    def __init__(
        self,
        costs: LearnedCosts,
        acceptance: LearnedAcceptance,
        switch: Switch | None,
        wishes: Wishes | None = None,
        greedy: bool = True,
        when_ended: Callable[["LearningPlan", bool], None] = lambda plan, is_quiet: None,
        is_padded: bool = False,
    ):
        self.costs, self.acceptance, self.switch = costs, acceptance, switch
        self._wishes, self._when_ended = wishes or Wishes(), when_ended
        self._greedy, self._is_padded = greedy, is_padded
        self._choices = 0
        self._choose()

    def next_budget(self, rows: int = 1) -> DraftBudget:
        """What the next round may draft; the number of rows is for `BatchPlan`, which has such a plan for each."""
        if self.switch is not None and not self.switch.is_on:
            return self._try() if self.switch.tries else PLAIN
        if self._should_see_a_plain_step():
            return PLAIN
        return self._survey() or self._budget

    def learn(self, round_: Round) -> None:
        """Take in what a round showed."""
        self.costs.observe(round_.costs)
        if round_.is_tail:
            return
        is_on_again = self.switch is not None and self._account_for(self.switch, round_)
        if is_on_again:
            self.acceptance.start_again()
        self.acceptance.observe(round_.trials)
        self._rounds_since += 1
        if is_on_again or self._should_choose():
            self._choose(is_on_again)

    def end(self, is_quiet: bool = True) -> None:
        """The answer is finished."""
        self._when_ended(self, is_quiet)

    def _choose(self, is_on_again: bool = False) -> None:
        costs, acceptance = self.costs.costs, self.acceptance.acceptance
        self._budget = choose_budget(
            costs, acceptance, **asdict(self._wishes), greedy=self._greedy, is_padded=self._is_padded
        )
        self._choices += 1
        self._rests_on, self._rounds_since = self._odds_and_costs(), 0
        if self._budget.depth == 0 and self.switch is not None and self.switch.is_on:
            if is_on_again:
                self._budget = self._try()  # what was seen counts more than what is expected
            else:
                self.switch.turn_off()

    def _odds_and_costs(self) -> tuple[list[float], list[float]]:
        """Numbers whose change makes another budget the best."""
        costs, rates = self.costs.costs, self.acceptance.first_choices
        tokens, plain = max(self._budget.total_tokens, 2), costs.verify_seconds(1)
        odds = [rate / (1 - rate) for rate in (rates[0], rates[len(rates) // 2])]
        return odds, [costs.verify_seconds(tokens) / plain, costs.draft_seconds(4, self._budget.top_k) / plain]

    def _should_choose(self) -> bool:
        if self.switch is not None and not self.switch.is_on:
            return False  # when a try succeeds is soon enough
        if self._rounds_since < min(_LEAST_BETWEEN + self._choices // 2, _MOST_BETWEEN):
            return False
        now, then = self._odds_and_costs(), self._rests_on
        return any(
            abs(math.log(a / b)) > limit
            for limit, new, old in zip((_ODDS_MOVED, _COSTS_MOVED), now, then, strict=True)
            for a, b in zip(new, old, strict=True)
        )

    def _try(self) -> DraftBudget:
        """A cheap branch, in the form that was asked for: the one that gives most, where all of it is accepted, for
        what it wastes where nothing is."""
        costs = self.costs.costs
        plain = costs.verify_seconds(1)

        def wasted(tokens: int) -> float:
            return max(costs.round_seconds(tokens, tokens - 1, 1) - plain, _LEAST_WASTE * plain)

        size = max(_TRIED, key=lambda tokens: tokens / wasted(tokens))
        return DraftBudget(size - 1, 1, size, self._wishes.mode or "tree")

    def _should_see_a_plain_step(self) -> bool:
        """Before it goes off, and where the pace is another than measured: what does a plain step take?"""
        if self.switch is None:
            return False
        return (self.switch.is_worried and self.costs.plain_step_was_long_ago) or self.costs.wants_plain_step

    def _survey(self) -> DraftBudget | None:
        """A tree of the size that has to be seen, every other round while the costs are in doubt."""
        size = self.costs.survey_size()
        if size is None or self.costs.rounds % 2 == 0 or self._budget.depth == 0 or self._wishes.total_tokens:
            return None
        if size == 1:
            return PLAIN
        if self._wishes.mode == "chain":
            return None
        return DraftBudget(min(self._budget.depth, size - 1), max(self._budget.top_k, _SURVEY_TOP_K), size)

    def _account_for(self, switch: Switch, round_: Round) -> bool:
        """Whether a try has switched drafting on again."""
        was_on = switch.is_on
        if self.costs.in_doubt:
            return False  # nobody knows what a step is
        if round_.costs.levels == 0:
            switch.count_plain(round_.emitted)
        else:
            # A forced run is verified whether anything is drafted below it or not.
            drafted = replace(round_.costs, tokens=round_.costs.tokens - round_.forced)
            reading = round_.reading / self.costs.plain_seconds
            switch.count_drafted(round_.emitted, self.costs.steps_of(drafted), reading)
        return switch.is_on and not was_on
