"""The budget that learns while it runs, on scripted machines and drafters, in simulated seconds."""

from statistics import median

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_mmspec.generation.budget import Acceptance, Wishes, expected_length, forecast
from hf_mmspec.generation.controller import PLAIN, FixedPlan, LearningPlan
from hf_mmspec.generation.costs import ForwardCosts
from hf_mmspec.generation.learned_acceptance import LearnedAcceptance
from hf_mmspec.generation.learned_costs import LearnedCosts
from hf_mmspec.generation.switch import Switch
from hf_mmspec.modeling import DraftBudget

from .simulated import play, promise

FLAT = {1: 1.0, 2: 1.02, 8: 1.1, 16: 1.2, 32: 1.3, 64: 1.6}
STEEP = {1: 1.0, 2: 1.65, 8: 1.7, 16: 2.0, 32: 2.5, 64: 3.5}
GOOD = Acceptance.from_depths([0.92, 0.92, 0.88, 0.88, 0.88, 0.89, 0.88, 0.85])
FAIR = Acceptance.from_depths([0.7, 0.65, 0.6])
RANDOM = Acceptance.from_depths([0.001])


def machine(growth, step=0.06, first=0.1, pace=1.0):
    level = ((1, step * pace), (10, 1.5 * step * pace))
    return ForwardCosts(tuple((n, pace * v) for n, v in growth.items()), first * pace, level)


def plan_for(costs, acceptance, tokens=160, in_doubt=False, trust=0, waited=0.0, greedy=True, **wishes):
    asked = Wishes(**wishes)
    switch = None if asked.to_draft else Switch(tokens, trust, waited)
    return LearningPlan(LearnedCosts(costs, in_doubt), LearnedAcceptance(acceptance), switch, asked, greedy)


def test_a_survey_keeps_to_chains():
    """What is tried while costs are in doubt is remembered among what chains are accepted."""
    plan = plan_for(machine(FLAT), GOOD, in_doubt=True, mode="chain")
    played = play(plan, 60, machine(FLAT), GOOD)
    assert {each.mode for each in played.budgets if each.depth} == {"chain"}


def best_speed(costs, acceptance):
    """Of a whole grid of budgets, plain decoding included."""
    best = 1 / costs.verify_seconds(1)
    for depth in (1, 2, 3, 4, 6, 8, 12, 16):
        for top_k in (1, 2, 3, 4, 8):
            for tokens, length in enumerate(expected_length(acceptance, depth, top_k)[:64], start=1):
                best = max(best, length / costs.round_seconds(tokens, depth, top_k))
    return best


def speed_once_learnt(plan, costs, acceptance, tokens=600):
    """Expected tokens per second of the tree that is best by what was learnt, and the best that there is. Thresholds,
    which are for rounds that differ from the average, say nothing here: these rounds are all alike."""
    play(plan, tokens, costs, acceptance)
    chosen = forecast(plan.costs.costs, plan.acceptance.acceptance).budget
    return promise(chosen, costs, acceptance), best_speed(costs, acceptance)


rates = st.lists(st.floats(0.3, 0.95), min_size=4, max_size=4).map(lambda many: sorted(many, reverse=True))
growths = st.tuples(st.floats(0.0, 0.1), st.floats(0.002, 0.05)).map(
    lambda two: {n: 1 + two[0] * (n > 1) + two[1] * (n - 1) for n in (1, 2, 4, 8, 16, 24, 32, 48, 64)}
)


@given(growths, st.floats(0.02, 0.2), rates, rates, st.floats(0.2, 5))
@settings(deadline=None, max_examples=15, derandomize=True)
def test_the_choice_comes_within_three_percent_of_the_best(growth, step, true_rates, believed_rates, pace):
    """Another pace than measured, and other acceptance than the card says."""
    costs, acceptance = machine(growth, step), Acceptance.from_depths(true_rates)
    plan = plan_for(machine(growth, step, pace=pace), Acceptance.from_depths(believed_rates))
    found, best = speed_once_learnt(plan, costs, acceptance)
    assert found >= 0.97 * best


@given(growths, st.floats(0.02, 0.2), rates)
@settings(deadline=None, max_examples=15, derandomize=True)
def test_it_comes_there_from_costs_that_a_busy_machine_measured(growth, step, true_rates):
    costs, acceptance = machine(growth, step), Acceptance.from_depths(true_rates)
    absurd = machine({1: 76.0, 8: 50.0, 32: 90.0, 64: 100.0}, step=4.0, first=3.0)
    found, best = speed_once_learnt(plan_for(absurd, acceptance, in_doubt=True), costs, acceptance)
    assert found >= 0.95 * best


@given(growths, growths, rates)
@settings(deadline=None, max_examples=15, derandomize=True)
def test_it_comes_near_from_costs_of_another_machine(growth, believed, true_rates):
    """Nobody noticed when they were measured; the rounds do, as far as they see other sizes."""
    costs, acceptance = machine(growth), Acceptance.from_depths(true_rates)
    found, best = speed_once_learnt(plan_for(machine(believed), acceptance), costs, acceptance)
    assert found >= 0.88 * best


@pytest.mark.parametrize("growth", [FLAT, STEEP])
@pytest.mark.parametrize("believed", [GOOD, FAIR])
@pytest.mark.parametrize("tokens, of_first", [(160, 1.04), (60, 1.06)])
def test_a_random_drafter_costs_at_most_three_percent(growth, believed, tokens, of_first):
    """Ten prompts in a row, each of which hands back what it learnt; the first already costs little."""
    costs, shares, acceptance, trust, waited = machine(growth), [], believed, 0, 0.0
    for seed in range(10):
        plan = plan_for(costs, acceptance, tokens, trust=trust, waited=waited)
        played = play(plan, tokens, costs, RANDOM, seed)
        shares.append(played.seconds / (tokens * costs.verify_seconds(1)))
        trust, waited = plan.switch.trust_after(), plan.switch.waited
    assert median(shares) <= 1.03 and shares[0] <= of_first
    assert min(shares) > 1 - 1e-9 and max(shares) > 1


@pytest.mark.parametrize("seed", range(5))
def test_a_drafter_that_is_good_again_is_used_again(seed):
    """Tokens 150 to 400 of the answer are from another domain."""
    costs = machine(FLAT)
    plan = plan_for(costs, GOOD, tokens=700)
    played = play(plan, 700, costs, lambda place: RANDOM if 150 <= place < 400 else GOOD, seed)

    def drafting(start, stop):
        rounds = [b.depth > 0 for b, p in zip(played.budgets, played.places, strict=True) if start <= p < stop]
        return sum(rounds) / len(rounds)

    assert drafting(0, 150) > 0.8 and drafting(250, 400) < 0.1 and drafting(540, 690) > 0.8
    stranger = play(plan_for(costs, GOOD, tokens=250), 250, costs, RANDOM, seed).seconds
    assert stranger < 1.04 * 250


def test_tries_come_ever_more_rarely():
    played = play(plan_for(machine(FLAT), GOOD, tokens=2000), 2000, machine(FLAT), RANDOM)
    tries = [place for budget, place in zip(played.budgets, played.places, strict=True) if budget.depth > 0]
    late = [b - a for a, b in zip(tries[-4:], tries[-3:], strict=False)]
    assert late == sorted(late) and late[-1] >= 100 and sum(place > 100 for place in tries) < 25


def test_a_request_that_follows_a_good_one_forgives_a_bad_start():
    cautious, trusting = (plan_for(machine(STEEP), GOOD, tokens=60, trust=trust) for trust in (0, 2))
    cautious.switch.count_drafted(1, 2.6)
    trusting.switch.count_drafted(1, 2.6)
    assert not cautious.switch.is_on and trusting.switch.is_on


@pytest.mark.parametrize(
    "wishes", [{"depth": 3}, {"total_tokens": 6}, {"depth": 2, "top_k": 2}, {"depth": 4, "mode": "tree"}]
)
def test_what_was_asked_for_stays_as_asked_whatever_happens(wishes):
    played = play(plan_for(machine(STEEP), GOOD, **wishes), 120, machine(STEEP), RANDOM)
    for budget in played.budgets[:-6]:  # the end of the answer leaves no room
        assert {name: getattr(budget, name) for name in wishes} == wishes


def test_a_given_mode_may_still_go_off_and_tries_in_that_mode():
    played = play(plan_for(machine(FLAT), GOOD, mode="tree", tokens=400), 400, machine(FLAT), RANDOM)
    drafting = [budget for budget in played.budgets if budget.depth > 0]
    assert len(drafting) < 50 and {budget.mode for budget in drafting} == {"tree"}


def test_a_fixed_plan_learns_nothing():
    plan = FixedPlan(DraftBudget(2, 2, 5))
    assert set(play(plan, 50, machine(STEEP), RANDOM).budgets[:-3]) == {DraftBudget(2, 2, 5)}
    assert plan.may_draft and not FixedPlan(PLAIN).may_draft


def test_the_same_rounds_lead_to_the_same_budgets():
    first, second = (play(plan_for(machine(FLAT), FAIR), 300, machine(FLAT), GOOD, 3, noise=0.1) for _ in range(2))
    assert first.budgets == second.budgets and first.seconds == second.seconds


def test_a_drafter_that_turns_out_better_than_its_card_is_used():
    """The card says that nothing pays: it starts off and a try shows otherwise."""
    plan = plan_for(machine(FLAT), Acceptance.from_depths([0.03]), tokens=400)
    assert plan.next_budget() == PLAIN
    played = play(plan, 400, machine(FLAT), GOOD)
    assert played.seconds < 0.6 * 400


def test_a_busy_spell_changes_the_pace_and_nothing_else():
    """All forwards take three times as long for a while: the budgets stay."""
    calm, busy = machine(FLAT), machine(FLAT, pace=3.0)
    plan = plan_for(calm, GOOD, tokens=600)
    played = play(plan, 600, lambda place: busy if 200 <= place < 400 else calm, GOOD)
    assert sum(budget.depth < 4 for budget in played.budgets[:-10]) <= 2  # looks at a plain step
    assert forecast(plan.costs.costs, GOOD).budget.depth == pytest.approx(forecast(calm, GOOD).budget.depth, abs=2)


@pytest.mark.parametrize("of_four, level, size", [(1.06, 0.01, 4), (1.9, 0.01, 3), (1.06, 0.1, 2)])
def test_a_try_stops_before_a_step_of_the_costs_and_where_drafting_is_dear(of_four, level, size):
    costs = ForwardCosts(((1, 1.0), (3, 1.05), (4, of_four), (8, 2.0)), 0.1, ((1, level),))
    switch = Switch(100, trust=-1)
    plan = LearningPlan(LearnedCosts(costs), LearnedAcceptance(Acceptance.from_depths([0.1])), switch)
    switch.count_plain(16)
    assert plan.next_budget() == DraftBudget(size - 1, 1, size)
