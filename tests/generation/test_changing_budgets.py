"""Budgets that change in every round, off and on included, change no token; a drafter that was off catches up."""

import random

import pytest
import torch

from hf_mmspec.generation import strategy
from hf_mmspec.generation.controller import FixedPlan
from hf_mmspec.generation.drafting import Drafting
from hf_mmspec.modeling import FAMILIES, DraftBudget, TargetPrompt

from .doubles import OracleDrafter, RandomDrafter
from .tiny import FAMILIES as TARGETS
from .tiny import PROMPTS, llava, llava_prompt, sliding_llava


class RestlessPlan(FixedPlan):
    """Another budget in every round; half of the time none at all, and off at first."""

    def __init__(self, seed, modes=("tree", "chain")):
        super().__init__(DraftBudget(6, 3, 19))
        object.__setattr__(self, "dice", random.Random(seed))
        object.__setattr__(self, "modes", modes)
        object.__setattr__(self, "rounds", [])

    def next_budget(self, rows=1):
        dice = self.dice
        if len(self.rounds) < 3 or dice.random() < 0.5:
            return DraftBudget(0, 1, 1)
        level, node = (dice.choice([0.0, 0.05, 0.3]) for _ in range(2))
        prices = tuple(node * n for n in range(24))
        return DraftBudget(
            dice.randint(1, 6), dice.randint(1, 4), dice.randint(1, 24), dice.choice(self.modes), level, prices
        )

    def learn(self, round_):
        self.rounds.append(round_)


@pytest.fixture
def restless(monkeypatch):
    """Makes every request follow a `RestlessPlan`, which is returned."""

    def use(seed, **options):
        plan = RestlessPlan(seed, **options)
        monkeypatch.setattr(strategy, "plan_budget", lambda *_: plan)
        return plan

    return use


def drafter_of(family, target):
    return FAMILIES[family][1].from_target(target, **({"feature_layers": [0, 1]} if family == "eagle3" else {}))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("sampled", [False, True])
def test_same_tokens_as_generate(restless, family, kind, sampled):
    """Sampled chains, which take random numbers of their own, are left out where the target samples."""
    target, inputs = TARGETS[kind](), PROMPTS[kind](1)
    drafter, options = drafter_of(family, target), {"max_new_tokens": 24, "do_sample": sampled}
    torch.manual_seed(5)
    plain = target.generate(**inputs, **options)
    for seed in range(2):
        plan = restless(seed, modes=("tree",) if sampled else ("tree", "chain"))
        torch.manual_seed(5)
        assert torch.equal(target.generate(**inputs, **options, assistant_model=drafter), plain)
        assert {round_.costs.levels > 0 for round_ in plan.rounds} == {True, False}


@pytest.mark.parametrize("seed", range(4))
def test_same_tokens_where_drafts_are_accepted(restless, seed):
    target, inputs = llava(), llava_prompt(seed)
    plain = target.generate(**inputs, max_new_tokens=40, do_sample=False)
    oracle = OracleDrafter(target, plain[0, inputs["input_ids"].shape[1] :].tolist())
    plan = restless(seed)
    assert torch.equal(target.generate(**inputs, max_new_tokens=40, do_sample=False, assistant_model=oracle), plain)
    assert sum(round_.emitted for round_ in plan.rounds) == plain.shape[1] - inputs["input_ids"].shape[1] - 1
    assert max(round_.emitted for round_ in plan.rounds) > 2


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("make", [llava, sliding_llava])
def test_plain_steps_between_drafts_with_and_without_windows(restless, make, attention):
    target, inputs = make(attention), llava_prompt(2)
    inputs["attention_mask"] = torch.nn.functional.pad(inputs["attention_mask"], (3, 0))
    inputs["input_ids"] = torch.nn.functional.pad(inputs["input_ids"], (3, 0))
    plain = target.generate(**inputs, max_new_tokens=30, do_sample=False)
    restless(1)
    drafted = target.generate(**inputs, max_new_tokens=30, do_sample=False, assistant_model=RandomDrafter(target))
    assert torch.equal(drafted, plain)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_drafter_that_reads_late_drafts_as_if_it_had_always_read(family):
    target = llava()
    drafter = drafter_of(family, target)
    borrowed = drafter.bind(target)
    ids = llava_prompt(images=0, length=9)["input_ids"]
    embeds = target.get_input_embeddings()(ids)
    width = embeds.shape[-1] * len(drafter.feature_layers_of(target) or [None])
    prompt = TargetPrompt(ids, embeds, torch.randn(1, ids.shape[1], width))
    budget, token = DraftBudget(3, 2, 8), torch.tensor([[5]])
    eager, late = (Drafting(drafter, [prompt], [token], borrowed) for _ in range(2))
    for rows in (1, 3, 1, 2):
        features, tokens = torch.randn(1, rows, width), torch.randint(3, 100, (1, rows))
        for reader in (eager, late):
            reader.follow([features], [tokens])
        (expected,) = eager.propose([budget], None)
    assert not late.has_read_prompts and late.waiting == 7 and eager.waiting == 0
    (found,) = late.propose([budget], None)
    assert torch.equal(found.tokens, expected.tokens) and torch.equal(found.parents, expected.parents)
    assert torch.allclose(found.scores, expected.scores, atol=1e-4)


def test_what_waits_is_bounded(monkeypatch):
    monkeypatch.setattr("hf_mmspec.generation.drafting._MOST_WAITING", 5)
    target = llava()
    drafter = drafter_of("eagle", target)
    embeds = torch.randn(1, 4, 32)
    prompt, token = TargetPrompt(None, embeds, embeds), torch.tensor([[5]])
    reader = Drafting(drafter, [prompt], [token], drafter.bind(target))
    for _ in range(20):
        reader.follow([torch.randn(1, 1, 32)], [torch.tensor([[7]])])
        assert reader.waiting <= 5


def test_nothing_is_read_where_nothing_is_drafted(monkeypatch):
    target, inputs = llava(), llava_prompt()
    drafter = RandomDrafter(target)
    monkeypatch.setattr(strategy, "plan_budget", lambda *_: FixedPlan(DraftBudget(0, 1, 1)))
    target.generate(**inputs, max_new_tokens=5, do_sample=False, assistant_model=drafter)
    assert drafter.prompts == []
