"""Logits processors that can tell: drafts keep to them, forced runs cost no forward, and no token changes."""

from types import SimpleNamespace

import pytest
import torch
from transformers import LogitsProcessor, LogitsProcessorList

from hf_mmspec.generation import DraftConstraint
from hf_mmspec.generation.draft_constraint import RoundGuidance, constraints_of, propose_guided, prune
from hf_mmspec.modeling import FAMILIES, DraftBudget, DraftTree

from . import tiny
from .doubles import OracleDrafter, RandomDrafter

NEW = 30
SHAPES = {
    "chain": dict(draft_mode="chain", draft_depth=7, draft_top_k=1, draft_total_tokens=8),
    "tree": dict(draft_mode="tree", draft_depth=7, draft_top_k=3, draft_total_tokens=16),
    "shallow": dict(draft_mode="tree", draft_depth=2, draft_top_k=8, draft_total_tokens=20),
    "none": dict(draft_depth=0),
}


class Rhythm(LogitsProcessor):
    """Of every `period` tokens the first `forced` ones are given; the rest are multiples of three."""

    period, forced = 9, 4

    def __init__(self, prompt_length):
        self.prompt_length = prompt_length
        self.asked = []

    def _allowed_at(self, place):
        mask = torch.zeros(tiny.VOCAB, dtype=torch.bool)
        if place % self.period < self.forced:
            mask[20 + place % self.period] = True
        else:
            mask[3::3] = True
        return mask

    def __call__(self, input_ids, scores):
        allowed = self._allowed_at(input_ids.shape[1] - self.prompt_length)
        return scores.masked_fill(~allowed, -torch.inf)

    def allowed_tokens(self, ids):
        self.asked.append(tuple(ids[self.prompt_length :]))
        return self._allowed_at(len(ids) - self.prompt_length)

    def forced_tokens(self, ids):
        place = (len(ids) - self.prompt_length) % self.period
        return [20 + each for each in range(place, self.forced)]


class Silent(Rhythm):
    """The same, without telling."""

    allowed_tokens = forced_tokens = None


def _generate(target, prompt, processor, **kwargs):
    torch.manual_seed(5)
    kwargs = {"max_new_tokens": NEW, "do_sample": False, "eos_token_id": None, **kwargs}
    return target.generate(
        **prompt,
        **kwargs,
        logits_processor=LogitsProcessorList([processor]),
        return_dict_in_generate=True,
        output_scores=True,
    )


def _check_same(expected, drafted):
    assert torch.equal(drafted.sequences, expected.sequences)
    assert len(drafted.scores) == len(expected.scores)
    for mine, theirs in zip(drafted.scores, expected.scores, strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.fixture(scope="module")
def target():
    return tiny.llava()


@pytest.fixture(scope="module")
def prompt():
    return tiny.llava_prompt()


@pytest.fixture(scope="module")
def plain(target, prompt):
    """What `generate` gives without a drafter under the rule, by whether it samples; the same for every drafter."""
    length = prompt["input_ids"].shape[1]
    return {do_sample: _generate(target, prompt, Rhythm(length), do_sample=do_sample) for do_sample in (False, True)}


def _drafter(family, target):
    torch.manual_seed(3)
    fields = {
        "flash": dict(num_slots=7),
        "eagle": dict(tree_choices=[[0], [1], [0, 0], [0, 1], [0, 0, 0]]),
        "eagle3": dict(feature_layers=[0, 1]),
    }
    drafter = FAMILIES[family][1].from_target(target, **fields.get(family, {}))
    for parameter in drafter.parameters():
        if parameter.dim() > 1:
            parameter.data.mul_(4)
    return drafter


@pytest.mark.parametrize("do_sample", [False, True], ids=["greedy", "sampled"])
@pytest.mark.parametrize("shape", ["tree", "shallow", "none"])
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_family_keeps_to_the_constraint_and_changes_no_token(family, shape, do_sample, target, prompt, plain):
    processor = Rhythm(prompt["input_ids"].shape[1])
    drafter = _drafter(family, target)
    drafted = _generate(target, prompt, processor, do_sample=do_sample, assistant_model=drafter, **SHAPES[shape])
    _check_same(plain[do_sample], drafted)
    speculation = drafted.speculation
    # the first forced token is the prefill's and the last one the last round's own; a draft may reach into a run
    assert sum(speculation.forced) == 3 + 4 + 4 + 2 if shape == "none" else 3 <= sum(speculation.forced) <= 13
    assert all(forced <= accepted for forced, accepted in zip(speculation.forced, speculation.accepted, strict=True))
    assert speculation.rounds <= NEW - 1 - sum(speculation.forced)
    for path in processor.asked if shape != "none" else []:
        for place, token in enumerate(path):
            assert processor._allowed_at(place)[token]


@pytest.mark.parametrize("family", ["vispec", "flash", "eagle3"])
def test_greedy_chains_of_families(family, target, prompt, plain):
    length = prompt["input_ids"].shape[1]
    drafter = _drafter(family, target)
    _check_same(plain[False], _generate(target, prompt, Rhythm(length), assistant_model=drafter, **SHAPES["chain"]))


@pytest.mark.parametrize("family", ["vispec", "flash"])
def test_sampled_chains_hold_the_constraint(family, target, prompt):
    """Other random numbers than plain sampling, so only the rule can be compared."""
    length = prompt["input_ids"].shape[1]
    drafter = _drafter(family, target)
    drafted = _generate(target, prompt, Rhythm(length), do_sample=True, assistant_model=drafter, **SHAPES["chain"])
    rule = Rhythm(0)
    answer = drafted.sequences[0, length:].tolist()
    assert len(answer) == NEW and all(rule._allowed_at(place)[token] for place, token in enumerate(answer))
    assert sum(drafted.speculation.forced) >= 3


@pytest.mark.parametrize("double", ["random", "oracle"])
def test_drafters_without_guidance_are_pruned(double, target, prompt, plain):
    length = prompt["input_ids"].shape[1]
    answer = plain[False].sequences[0, length:].tolist()
    drafter = RandomDrafter(target) if double == "random" else OracleDrafter(target, answer)
    drafted = _generate(target, prompt, Rhythm(length), assistant_model=drafter, **SHAPES["tree"])
    _check_same(plain[False], drafted)
    silent = _generate(target, prompt, Silent(length), assistant_model=drafter, **SHAPES["tree"])
    _check_same(plain[False], silent)
    assert sum(drafted.speculation.drafted) < sum(silent.speculation.drafted)
    assert not any(silent.speculation.forced)


def test_a_silent_processor_is_no_constraint():
    assert constraints_of([Rhythm(0), Silent(0), LogitsProcessor()])[0].prompt_length == 0
    assert len(constraints_of([Rhythm(0), LogitsProcessor()])) == 1
    assert isinstance(Rhythm(0), DraftConstraint) and not isinstance(LogitsProcessor(), DraftConstraint)


def test_a_wrong_constraint_changes_no_token(target, prompt, plain):
    class Liar(Rhythm):
        def forced_tokens(self, ids):
            return [7, 8, 9]

        def allowed_tokens(self, ids):
            return torch.zeros(tiny.VOCAB - 50, dtype=torch.bool)

    length = prompt["input_ids"].shape[1]
    drafter = _drafter("vispec", target)
    _check_same(plain[False], _generate(target, prompt, Liar(length), assistant_model=drafter, **SHAPES["tree"]))


def test_two_constraints_allow_what_both_allow():
    class Small(Rhythm):
        def forced_tokens(self, ids):
            return ()

        def allowed_tokens(self, ids):
            return torch.ones(30, dtype=torch.bool)

    guidance = RoundGuidance([Small(1), Rhythm(1)], [5, 1, 1, 1, 1], levels=5)
    assert guidance.forced == ()
    assert guidance.allowed(()).nonzero().flatten().tolist() == list(range(3, 30, 3))
    guidance = RoundGuidance([Small(1), Rhythm(1)], [5, 1], levels=2)
    assert guidance.forced == (21, 22)


def test_pruning_cuts_below_what_it_cuts():
    guidance = RoundGuidance([Rhythm(0)], [20, 21, 22, 23], levels=5)
    tree = DraftTree(
        tokens=torch.tensor([23, 3, 4, 6, 9, 10]),
        parents=torch.tensor([-1, 0, 0, 1, 2, 1]),
        depths=torch.tensor([0, 1, 1, 2, 2, 2]),
        scores=torch.arange(6.0),
    )
    kept = prune(tree, guidance)
    assert kept.tokens.tolist() == [23, 3, 6] and kept.parents.tolist() == [-1, 0, 1]
    assert kept.depths.tolist() == [0, 1, 2] and kept.scores.tolist() == [0, 1, 3]
    assert prune(kept, guidance) is kept


def test_a_long_run_comes_alone():
    guidance = RoundGuidance([Rhythm(0)], [20], levels=9)
    budget = DraftBudget(3, 2, 6)
    drafting = SimpleNamespace(takes_guidance=True)  # not asked
    (tree,) = propose_guided(drafting, [torch.tensor([20])], [budget], None, [guidance])
    assert tree.tokens.tolist() == [20, 21, 22, 23] and tree.depths.tolist() == [0, 1, 2, 3]
