"""What a plan is told in batches, below forced runs and in conversations; plain steps of one row take no mask."""

import pytest
import torch
from transformers import GenerationConfig

from hf_mmspec.generation import request_plan, strategy
from hf_mmspec.generation.controller import FixedPlan, LearningPlan
from hf_mmspec.generation.conversation_cache import ConversationCache
from hf_mmspec.generation.costs import CostRecord, ForwardCosts
from hf_mmspec.generation.learned_acceptance import Trial, trials_of
from hf_mmspec.generation.request_plan import plan_budget
from hf_mmspec.modeling import DraftBudget, DraftTree, ViSpecDrafter

from . import tiny
from .batches import batch_of, prompts
from .test_draft_constraint import NEW, Rhythm, _drafter, _generate

TREE, PLAIN = DraftBudget(7, 3, 16), DraftBudget(0, 1, 1)


class Diary(FixedPlan):
    """Drafts in some rounds, and keeps what it is told."""

    def __init__(self, drafts=lambda number: True):
        super().__init__(TREE)
        object.__setattr__(self, "rounds", [])
        object.__setattr__(self, "drafts", drafts)

    def next_budget(self, rows=1):
        return TREE if self.drafts(len(self.rounds)) else PLAIN

    def learn(self, round_):
        self.rounds.append(round_)

    def use(self, monkeypatch):
        monkeypatch.setattr(strategy, "plan_budget", lambda *_: self)
        return self


def test_forced_levels_are_no_trials():
    tree = DraftTree.chain(torch.tensor([1, 2, 3, 4, 5]), levels=2)
    assert trials_of(tree, [0, 1, 2, 3], forced=2) == [Trial(3, 1, 1), Trial(4, 1, None)]
    assert trials_of(tree, [0, 1], is_cut=True, forced=2) == []


@pytest.mark.parametrize("family", ["vispec", "flash"])
def test_forced_tokens_are_no_merit(family, monkeypatch):
    target, prompt = tiny.llava(), tiny.llava_prompt()
    length, drafter = prompt["input_ids"].shape[1], _drafter(family, target)
    plan = Diary().use(monkeypatch)
    speculation = _generate(target, prompt, Rhythm(length), assistant_model=drafter).speculation
    assert sum(speculation.forced) >= 3 and len(plan.rounds) == speculation.rounds
    assert sum(each.emitted for each in plan.rounds) == NEW - 1 - sum(speculation.forced)
    for each, levels in zip(plan.rounds, speculation.levels, strict=True):
        assert each.costs.levels == levels and each.costs.tokens > each.forced
        assert each.costs.is_usual is (each.forced == 0)
        assert all(trial.depth > each.forced for trial in each.trials)
    assert any(each.forced and not each.trials for each in plan.rounds)


def test_runs_alone_are_rounds_without_levels(monkeypatch):
    target, prompt = tiny.llava(), tiny.llava_prompt()
    plan = Diary(drafts=lambda number: False).use(monkeypatch)
    processor = Rhythm(prompt["input_ids"].shape[1])
    speculation = _generate(target, prompt, processor, assistant_model=_drafter("vispec", target)).speculation
    assert sum(speculation.forced) == 13 and not any(speculation.levels)
    assert not any(each.trials for each in plan.rounds)


def test_one_round_of_a_batch_is_learnt_once(monkeypatch):
    """Also where its drafter reads late, and after rows have ended."""
    model, inputs = tiny.llava(), batch_of(prompts("llava", 3))
    arguments = dict(max_new_tokens=16, do_sample=False, eos_token_id=1, return_dict_in_generate=True)
    plain = model.generate(**inputs, **arguments)
    plan = Diary(drafts=lambda number: number % 3 == 2).use(monkeypatch)
    drafter = ViSpecDrafter.from_target(model, initializer_range=0.3)
    ours = model.generate(**inputs, **arguments, assistant_model=drafter)
    assert ours.sequences.tolist() == plain.sequences.tolist()
    stats = ours.speculation
    assert len(plan.rounds) == stats.rounds and len(stats.levels) == len(stats.row_of) == len(stats.forced)
    assert sum(each.emitted for each in plan.rounds) == sum(stats.accepted) + len(stats.accepted)
    assert {each.costs.levels > 0 for each in plan.rounds} == {True, False}


def test_several_rows_have_one_budget_from_costs_of_so_many(monkeypatch):
    asked = []

    def record(target, drafter, rows=1):
        asked.append(rows)
        verify = ((1, 1.0), (64, 1.0 + 0.3 * rows))
        return CostRecord(ForwardCosts(verify, 0.01, ((1, 0.01), (10, 0.01))), False, ("", ""), rows)

    monkeypatch.setattr(request_plan, "cost_record", record)
    target = tiny.llava()
    drafter = ViSpecDrafter.from_target(target, acceptance_by_depth=[0.8])
    assert isinstance(plan_budget(target, drafter, GenerationConfig(), 100), LearningPlan)
    few, many = (plan_budget(target, drafter, GenerationConfig(), 100, rows) for rows in (2, 64))
    assert few.next_budget(2).total_tokens > many.next_budget(64).total_tokens
    assert asked == [1, 1, 2, 1, 64]


def test_a_conversation_is_read_to_its_end(monkeypatch):
    """Whatever was drafted, so that the next turn goes on without a gap."""
    model, prompt = tiny.llava(), tiny.llava_prompt(images=0)
    drafter, cache = ViSpecDrafter.from_target(model), ConversationCache(model.config)
    Diary(drafts=lambda number: False).use(monkeypatch)
    answer = model.generate(**prompt, max_new_tokens=9, do_sample=False, cache=cache, assistant_model=drafter)
    assert cache._draft_state.slots == list(range(answer.shape[1] - 1))
    assert cache._draft_state.last_token.tolist() == answer[0, -1:].tolist()


@pytest.mark.parametrize("padding", [0, 2])
def test_only_plain_steps_of_one_unpadded_row_go_without_a_mask(padding, monkeypatch):
    model, prompt = tiny.llava(), tiny.llava_prompt()
    prompt = {
        **prompt,
        **{k: torch.nn.functional.pad(prompt[k], (padding, 0)) for k in ("input_ids", "attention_mask")},
    }
    plan, masks = Diary(drafts=lambda number: number % 2 == 1).use(monkeypatch), []
    model.get_decoder().register_forward_pre_hook(
        lambda module, args, kwargs: masks.append(kwargs.get("attention_mask")), with_kwargs=True
    )
    drafter = ViSpecDrafter.from_target(model)
    model.generate(**prompt, max_new_tokens=12, do_sample=False, eos_token_id=None, assistant_model=drafter)
    steps = zip(plan.rounds, masks[1:], strict=True)
    assert all((mask is None) is (each.costs.tokens == 1 and padding == 0) for each, mask in steps)
