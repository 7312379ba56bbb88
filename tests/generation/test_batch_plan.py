"""How much a batch drafts follows the rows that are left and what was accepted of them all."""

import pytest

from hf_mmspec.generation.batch_plan import BatchCosts, BatchPlan
from hf_mmspec.generation.budget import Acceptance, Wishes
from hf_mmspec.generation.controller import PLAIN, Round
from hf_mmspec.generation.costs import ForwardCosts
from hf_mmspec.generation.learned_acceptance import LearnedAcceptance, Trial
from hf_mmspec.generation.learned_costs import RoundCosts
from hf_mmspec.generation.switch import Switch

ONE = ForwardCosts(((1, 1.0), (64, 1.6)), 0.02, ((1, 0.02), (10, 0.03)), 0.01)
EIGHT = ForwardCosts(((1, 1.2), (4, 1.8), (32, 9.0)), 0.06, ((1, 0.05), (10, 0.1)), 0.03)
COSTS = BatchCosts(8, ONE, EIGHT)


def plan_of(rate=0.8, **options):
    learned = LearnedAcceptance(Acceptance.from_depths([rate]))
    arguments = {"make_switch": lambda: Switch(100), "wishes": Wishes(), "greedy": True, **options}
    return BatchPlan(COSTS, learned, **arguments)


def test_costs_between_one_row_and_many():
    assert COSTS.of(1).verify_seconds(4) == pytest.approx(ONE.verify_seconds(4))
    assert COSTS.of(8) == EIGHT
    middle = COSTS.of(4)
    share = 3 / 7
    for size in (1, 4, 32):
        expected = ONE.verify_seconds(size) + share * (EIGHT.verify_seconds(size) - ONE.verify_seconds(size))
        assert middle.verify_seconds(size) == pytest.approx(expected)
    assert ONE.first_level < middle.first_level < EIGHT.first_level
    assert ONE.overhead < middle.overhead < EIGHT.overhead
    assert ONE.level_seconds(1) < middle.level_seconds(1) < EIGHT.level_seconds(1)


def test_fewer_rows_draft_more():
    plan = plan_of()
    sizes = [plan.next_budget(rows).total_tokens for rows in (8, 7, 4, 2, 1)]
    assert sizes == sorted(sizes) and 1 < sizes[0] < sizes[-1]


def test_what_pays_for_few_rows_only_starts_when_they_are_few():
    plan = plan_of(rate=0.15)
    assert plan.next_budget(8) == PLAIN
    assert plan.next_budget(1).depth > 0


def test_all_rows_teach_and_the_next_request_is_told():
    told = []
    plan = plan_of(when_ended=told.append)
    before = plan.next_budget(8)
    missed = [Trial(1, 1, None)] * 8
    for _ in range(12):
        budget = plan.next_budget(8)
        costs = RoundCosts(budget.total_tokens, EIGHT.verify_seconds(budget.total_tokens), levels=budget.depth)
        plan.learn(Round(costs, missed if budget.depth else [], emitted=8))
    assert before.depth > 0 and plan.next_budget(8) == PLAIN
    plan.end()
    assert told[0].acceptance.at(1, 1)[0] < 0.4


def test_a_slow_machine_is_slow_for_fewer_rows_too():
    plan = plan_of()
    budget = plan.next_budget(8)
    slow = RoundCosts(budget.total_tokens, 3 * EIGHT.verify_seconds(budget.total_tokens), levels=budget.depth)
    for _ in range(6):
        plan.learn(Round(slow, [], emitted=8))
    plan.next_budget(4)
    assert plan._plan.costs.pace == pytest.approx(3, rel=0.05)
    assert plan._plan.costs.costs.verify_seconds(1) == pytest.approx(3 * COSTS.of(4).verify_seconds(1), rel=0.1)


def test_no_round_is_spent_on_exploring():
    """A batch's costs are far from those that were measured with a short context, and that is no reason to stop."""
    plan = plan_of(make_switch=None)
    for number in range(40):
        budget = plan.next_budget(8)
        assert 1 < budget.total_tokens < 32
        seconds = EIGHT.verify_seconds(budget.total_tokens) * (2 if number % 2 else 0.5)
        plan.learn(Round(RoundCosts(budget.total_tokens, seconds, levels=budget.depth), [], emitted=16))


def test_a_wish_to_draft_is_honoured():
    plan = plan_of(rate=0.05, make_switch=None, wishes=Wishes(depth=2))
    assert {plan.next_budget(rows).depth for rows in (8, 3, 1)} == {2}
