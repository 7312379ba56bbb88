"""A round ends where its drafter is unsure: trees and chains under a budget's threshold and prices."""

import dataclasses
import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hf_mmspec.generation import strategy
from hf_mmspec.generation.controller import FixedPlan
from hf_mmspec.modeling import FAMILIES, DraftBudget
from hf_mmspec.modeling.tree_growth import Rows, grow_chains, grow_trees, sample_chains
from tests.generation import tiny

VOCAB = 7
ROOT = torch.tensor([0])


class Script:
    """A drafter whose distribution depends on the level alone; counts the levels that it was asked for."""

    def __init__(self, best_by_level):
        self.rows = []
        for best in best_by_level:
            probs = torch.full((VOCAB,), (1 - best) / (VOCAB - 1))
            probs[3] = best
            self.rows.append(probs.log())
        self.steps = 0

    def first(self):
        return Rows(torch.zeros(1, 1, 2), self.rows[0][None, None])

    def step(self, tokens, features, level, visible):
        self.steps += 1
        return Rows(torch.zeros(*tokens.shape, 2), self.rows[level + 1].expand(*tokens.shape, -1))


def each_costs(price, count):
    """Prices where every drafted node costs the same: those are worth it that are more probable."""
    return tuple(price * n for n in range(count))


def grow(script, budget, grower=grow_trees):
    return grower(ROOT, script.first(), script.step, lambda ids: ids, [budget])[0]


@pytest.mark.parametrize("grower", [grow_trees, grow_chains])
def test_no_level_is_drafted_that_is_too_unlikely_to_be_reached(grower):
    script = Script([0.9, 0.9, 0.3, 0.9, 0.9])
    budget = DraftBudget(5, 1, 6, level_threshold=0.3)
    tree = grow(script, budget, grower)
    # 0.9, 0.81, 0.243: level 3 is drafted, since it is reached with 0.81, and level 4 is not
    assert script.steps == 2 and int(tree.depths.max()) == 3
    without = dataclasses.replace(budget, level_threshold=0.0)
    assert int(grow(Script([0.9, 0.9, 0.3, 0.9, 0.9]), without, grower).depths.max()) == 5


@pytest.mark.parametrize("grower", [grow_trees, grow_chains])
def test_improbable_nodes_are_not_proposed(grower):
    tree = grow(Script([0.9, 0.9, 0.3, 0.9]), DraftBudget(4, 3, 40, prices=each_costs(0.25, 40)), grower)
    assert tree.tokens.tolist() == [0, 3, 3]


def test_an_unsure_drafter_proposes_nothing():
    tree = grow(Script([0.2]), DraftBudget(3, 2, 9, level_threshold=0.9, prices=each_costs(0.5, 9)))
    assert len(tree) == 1


def test_nan_ends_the_growth():
    script = Script([0.9, 0.9])
    script.rows[0] = torch.full((VOCAB,), math.nan)
    tree = grow(script, DraftBudget(2, 2, 7, level_threshold=0.1, prices=each_costs(0.1, 7)))
    assert len(tree) == 1 and script.steps == 0


@given(st.lists(st.floats(0.15, 0.99), min_size=5, max_size=5), st.floats(0, 1), st.floats(0, 1), st.integers(1, 4))
@settings(deadline=None, max_examples=60)
def test_thresholds_only_take_away(best, level, node, top_k):
    """What is proposed is the tree without thresholds, less its deep levels and its improbable nodes."""
    everything = DraftBudget(5, top_k, 10_000)
    budget = dataclasses.replace(everything, level_threshold=level, prices=each_costs(node, 10_000))
    whole, cut = grow(Script(best), everything), grow(Script(best), budget)
    deepest = int(cut.depths.max())
    assume(all(abs(math.exp(score) - node) > 1e-5 for score in whole.scores.tolist()[1:]))  # ties in float32
    is_root = whole.depths == 0  # known, so never taken away
    wanted = whole.scores[is_root | ((whole.depths <= deepest) & (whole.scores.exp() > node))]
    assert sorted(cut.scores.tolist()) == pytest.approx(sorted(wanted.tolist()), abs=1e-5)


def test_sampled_chains_know_no_thresholds():
    """Leaving out a draft because of what was drawn would change the distribution."""
    torch.manual_seed(0)
    budget, counts = DraftBudget(2, 1, 3, "chain", 0.9, (0.0, 9.0, 9.0)), torch.zeros(VOCAB)
    for _ in range(400):
        script = Script([0.4, 0.4])
        drawn = (ROOT, script.first(), script.step, lambda ids: ids, [budget])
        (tree,) = sample_chains(*drawn, temperature=1.0, vocab_size=VOCAB)
        assert len(tree) == 3 and tree.proposal_probs.shape == (3, VOCAB)
        counts[tree.tokens[1]] += 1
    assert counts[3] / 400 == pytest.approx(0.4, abs=0.08) and (counts > 0).all()


def test_a_level_that_overflows_cuts_no_parent():
    """A plain sort puts NaN first: the children of an overflowed level would push out their own parents."""
    script = Script([0.5, 0.5, 0.5])
    script.rows[1] = script.rows[2] = torch.full((VOCAB,), math.nan)
    tree = grow(script, DraftBudget(3, 3, 8))
    assert [int(tree.depths[parent]) + 1 for parent in tree.parents[1:]] == tree.depths[1:].tolist()
    assert (tree.depths == 1).sum() == 3


@pytest.mark.parametrize(
    "bad",
    [
        {"level_threshold": -0.1},
        {"level_threshold": 1.5},
        {"level_threshold": math.nan},
        {"prices": (0.0, -0.1)},
        {"prices": (0.0, 0.5, 0.4)},
        {"prices": (0.0, math.nan)},
        {"prices": (0.0, math.inf)},
        {"exponent": 0.0},
        {"exponent": math.nan},
    ],
)
def test_thresholds_and_prices_that_cannot_be(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        DraftBudget(1, 1, 2, **bad)


@pytest.mark.parametrize("grower", [grow_trees, grow_chains])
@pytest.mark.parametrize(
    "best, nodes",
    [
        ([0.5, 0.5, 0.5, 0.5], 2),  # 0.5 + 0.25 + ... never pay for the step
        ([0.9, 0.9, 0.9, 0.9], 4),  # 0.9 + 0.81 + 0.73 + 0.66 do
        ([0.1, 0.1, 0.1, 0.1], 1),
    ],
)
def test_a_step_of_the_costs_is_taken_only_by_rounds_that_are_worth_it(grower, best, nodes):
    prices = (0.0, 0.2, 2.0, 2.0, 2.0)
    tree = grow(Script(best), DraftBudget(4, 1, 5, prices=prices), grower)
    assert len(tree) == nodes + (nodes == 4)


def test_a_greedy_target_takes_more_than_the_drafter_believes():
    cut, kept = (DraftBudget(1, 1, 2, prices=(0.0, 0.5), exponent=exponent) for exponent in (1.0, 0.5))
    scores = torch.tensor([math.log(0.4)])
    assert (cut.worth(scores), kept.worth(scores)) == (0, 1)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("mode, sampled", [("tree", False), ("tree", True), ("chain", False)])
def test_same_tokens_as_generate_whatever_the_thresholds(family, mode, sampled, monkeypatch):
    target, inputs = tiny.llava(), tiny.llava_prompt(1)
    taps = {"feature_layers": [0, 1]} if family == "eagle3" else {}
    drafter = FAMILIES[family][1].from_target(target, **taps)
    options = {"max_new_tokens": 16, "do_sample": sampled}
    torch.manual_seed(1)
    plain = target.generate(**inputs, **options)
    for level, node in [(0.0, 0.02), (0.03, 0.0), (0.05, 0.03), (1.0, 1.0)]:
        budget = DraftBudget(6, 3, 19, mode, level_threshold=level, prices=each_costs(node, 19))
        monkeypatch.setattr(strategy, "plan_budget", lambda *_, chosen=budget: FixedPlan(chosen))
        torch.manual_seed(1)
        assert torch.equal(target.generate(**inputs, **options, assistant_model=drafter), plain)
