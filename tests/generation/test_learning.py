"""What rounds teach about costs and acceptance, apart from what is made of it."""

import gc
import random

import pytest
import torch

from hf_mmspec.generation import acceptance_memory
from hf_mmspec.generation.acceptance_memory import Experience, experience_with, hand_back
from hf_mmspec.generation.budget import Acceptance
from hf_mmspec.generation.costs import ForwardCosts
from hf_mmspec.generation.learned_acceptance import LearnedAcceptance, Trial, trials_of
from hf_mmspec.generation.learned_costs import LearnedCosts, RoundCosts
from hf_mmspec.modeling import DraftTree, ViSpecDrafter

from .tiny import llava

START = ForwardCosts(((1, 1.0), (8, 1.2), (32, 2.0)), first_level=0.1, level=((1, 0.05), (10, 0.1)), overhead=0.03)
GOOD = Acceptance.from_depths([0.9, 0.85, 0.8])


def test_a_round_as_expected_changes_nothing():
    learned = LearnedCosts(START)
    for _ in range(20):
        learned.observe(RoundCosts(8, 1.2, draft=0.1, other=0.03, levels=1))
    assert learned.costs == START and learned.plain_seconds == pytest.approx(1.03)


def test_another_pace_scales_all_sizes_within_three_rounds():
    learned = LearnedCosts(START)
    for _ in range(3):
        learned.observe(RoundCosts(8, 12.0))
    assert [seconds for _, seconds in learned.costs.verify] == pytest.approx([10, 12, 20])
    assert learned.wants_plain_step


def test_one_slow_round_is_hardly_believed():
    learned = LearnedCosts(START)
    for tokens in (8, 32, 8, 32):
        learned.observe(RoundCosts(tokens, START.verify_seconds(tokens)))
    learned.observe(RoundCosts(8, 50.0))
    assert learned.costs.verify_seconds(8) < 1.1 * 1.2


def test_an_interrupted_plain_step_does_not_make_drafts_seem_free():
    """Else drafting would never go off where nothing is accepted: three tokens took less than that one step."""
    costs = LearnedCosts(ForwardCosts(((1, 1.0), (3, 1.0), (4, 2.0), (8, 2.1), (32, 3.0)), 0.08, ((1, 0.04),)))
    chain = RoundCosts(tokens=3, verify=1.0, draft=0.12, levels=2)
    for _ in range(3):
        costs.observe(chain)
    for _ in range(3):
        costs.observe(RoundCosts(tokens=1, verify=1.19))
        costs.observe(chain)
    assert costs.steps_of(chain) > 1.11


def test_a_plain_step_is_wanted_again_after_a_while():
    costs = LearnedCosts(ForwardCosts(((1, 1.0), (8, 2.0)), 0.1, ((1, 0.1),)))
    assert costs.plain_step_was_long_ago
    costs.observe(RoundCosts(tokens=1, verify=1.0))
    for _ in range(31):
        assert not costs.plain_step_was_long_ago
        costs.observe(RoundCosts(tokens=2, verify=1.1))
    costs.observe(RoundCosts(tokens=2, verify=1.1))
    assert costs.plain_step_was_long_ago


def test_sizes_are_learnt_one_by_one():
    true = {1: 1.0, 8: 1.3, 20: 1.6, 32: 1.8}
    learned, dice = LearnedCosts(START), random.Random(0)
    for _ in range(200):
        tokens = dice.choice(list(true))
        learned.observe(RoundCosts(tokens, true[tokens]))
    assert [learned.costs.verify_seconds(n) for n in (1, 8, 32)] == pytest.approx([1.0, 1.3, 1.8], rel=0.06)


def test_drafting_is_learnt_by_first_and_further_levels():
    learned, dice = LearnedCosts(START), random.Random(0)
    for _ in range(300):
        levels = dice.randint(1, 8)
        learned.observe(RoundCosts(8, 1.2, draft=0.2 + 0.15 * (levels - 1), levels=levels))
    assert learned.costs.draft_seconds(1, 1) == pytest.approx(0.2, rel=0.15)
    assert learned.costs.draft_seconds(8, 1) == pytest.approx(1.25, rel=0.05)


def test_a_round_in_which_the_drafter_caught_up_says_nothing_about_drafting():
    learned = LearnedCosts(START)
    for _ in range(5):
        learned.observe(RoundCosts(8, 1.2, draft=9.0, levels=2, is_usual=False))
    assert learned.costs.draft_seconds(2, 1) == START.draft_seconds(2, 1)


def test_a_survey_asks_for_essential_sizes_and_replaces_what_was_measured():
    learned = LearnedCosts(ForwardCosts(((1, 76.0), (8, 50.0), (32, 90.0)), 1.0, ((1, 1.0),)), in_doubt=True)
    true, asked = {1: 1.0, 8: 1.5, 32: 2.5}, []
    while learned.in_doubt:
        asked.append(learned.survey_size())
        learned.observe(RoundCosts(asked[-1], true[asked[-1]]))
    assert asked == [1, 8, 32, 1, 8, 32] and learned.costs.verify == tuple(true.items())


def test_a_steady_curve_that_is_surveyed_keeps_its_steps():
    """From 3 to 4 tokens this machine takes half as long again, which no surveyed size shows."""
    steps = {1: 10.0, 3: 10.0, 4: 18.0, 8: 20.0, 32: 40.0, 64: 80.0}
    learned = LearnedCosts(ForwardCosts(tuple(steps.items()), 1.0, ((1, 1.0),)))
    for _ in range(3):
        learned.observe(RoundCosts(8, 72.0))
    learned.observe(RoundCosts(1, 20.0))  # so it was not the pace
    assert learned.in_doubt
    while learned.in_doubt:
        size = learned.survey_size()
        learned.observe(RoundCosts(size, 2 * steps[size]))
    seen = {size: learned.costs.verify_seconds(size) for size in steps}
    # beyond the sizes of a survey it goes on as between the last two
    assert seen == pytest.approx({1: 20.0, 3: 20.0, 4: 36.0, 8: 40.0, 32: 80.0, 64: 80.0 + 32 * 40 / 24}, rel=0.05)


def test_a_survey_gives_up_sizes_that_a_drafter_cannot_fill():
    learned = LearnedCosts(START, in_doubt=True)
    for _ in range(40):
        size = min(learned.survey_size() or 1, 8)
        learned.observe(RoundCosts(size, START.verify_seconds(size)))
    assert not learned.in_doubt and learned.costs.growth(8) == pytest.approx(1.2)


def test_a_plain_step_that_is_far_off_starts_a_survey():
    learned = LearnedCosts(START)
    for _ in range(3):
        learned.observe(RoundCosts(8, 3.6))
    learned.observe(RoundCosts(1, 1.0))  # so it was not the pace
    assert learned.in_doubt


# -- acceptance ------------------------------------------------------------------------------------------------------


def tree():
    """Root with the children 5, 6, 7, of which 6 has the children 8, 9."""
    parents = torch.tensor([-1, 0, 0, 0, 2, 2])
    return DraftTree(torch.tensor([1, 5, 6, 7, 8, 9]), parents, torch.tensor([0, 1, 1, 1, 2, 2]), torch.zeros(6))


@pytest.mark.parametrize(
    "path, is_cut, expected",
    [
        ([0], False, [Trial(1, 3, None)]),
        ([0, 1], False, [Trial(1, 3, 1)]),
        ([0, 2], False, [Trial(1, 3, 2), Trial(2, 2, None)]),
        ([0, 2, 5], False, [Trial(1, 3, 2), Trial(2, 2, 2)]),
        ([0, 2], True, [Trial(1, 3, 2)]),
        ([0], True, []),
    ],
)
def test_trials_of_a_round(path, is_cut, expected):
    assert trials_of(tree(), path, is_cut) == expected


def simulate(learned, rates, trials, seed=0):
    dice = random.Random(seed)
    for _ in range(trials):
        learned.observe([Trial(1, 1, 1 if dice.random() < rates[0] else None)])
    return learned


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.8])
def test_another_rate_is_found_within_some_tens_of_trials(rate):
    learned = simulate(LearnedAcceptance(GOOD), [rate], 150)
    assert learned.acceptance.by_rank[0][0] == pytest.approx(rate, abs=0.15)


def test_a_few_misses_lower_all_depths():
    learned = LearnedAcceptance(GOOD)
    for _ in range(5):
        learned.observe([Trial(1, 1, None)])
    assert all(now < 0.8 * before[0] for now, before in zip(learned.first_choices, GOOD.by_rank, strict=True))


def test_further_choices_are_learnt_among_the_rounds_that_missed_the_first():
    learned = LearnedAcceptance(GOOD)
    for _ in range(200):
        learned.observe([Trial(1, 3, 2)])
    first, second, *_ = learned.acceptance.by_rank[0]
    assert second > 0.6 and first < 0.2


def test_rates_stay_probabilities_whatever_happens():
    dice = random.Random(1)
    for _ in range(30):
        learned = LearnedAcceptance(Acceptance.from_depths([dice.choice([0.0, 0.001, 0.5, 1.0]) for _ in range(3)]))
        for _ in range(60):
            learned.observe([Trial(dice.randint(1, 6), dice.randint(1, 10), dice.choice([None, 1]))])
        for ranks in learned.acceptance.by_rank:
            assert all(0 <= rate <= 1 for rate in ranks) and sum(ranks) <= 1 + 1e-9
        assert all(0 < rate < 1 for rate in learned.first_choices)


# -- what is handed back ---------------------------------------------------------------------------------------------


def test_experience_is_kept_by_kind_and_pair_and_goes_with_the_drafter():
    target = llava()
    drafter, other = (ViSpecDrafter.from_target(target, acceptance_by_depth=[0.9, 0.8]) for _ in range(2))
    usual = experience_with(target, drafter, "greedy")
    assert usual == Experience(Acceptance.of(drafter))
    learned = simulate(LearnedAcceptance(usual.acceptance), [0.1], 60)
    hand_back(target, drafter, "sampled", learned, trust=-1)
    found = experience_with(target, drafter, "sampled")
    assert found.trust == -1 and 0.2 < found.acceptance.by_rank[0][0] < 0.8
    assert experience_with(target, drafter, "greedy") == usual == experience_with(target, other, "sampled")
    kept = len(acceptance_memory._experience)
    del drafter
    gc.collect()
    assert len(acceptance_memory._experience) == kept - 1
