"""Sampling with a drafter draws from the target's own distribution, and is reproducible."""

import pytest
import torch
from scipy.stats import chisquare
from transformers import set_seed

from hf_mmspec.generation.answer import Answer
from hf_mmspec.generation.loop import walk
from hf_mmspec.generation.target import Verified
from hf_mmspec.modeling import DraftTree, ViSpecDrafter
from tests.slow_parameters import slow

from . import tiny
from .doubles import OracleDrafter, RandomDrafter
from .test_lossless_greedy import SHAPES

VOCAB = 6


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("shape", ["narrow", "wide", "none"])
def test_same_seed_same_tokens_as_plain_sampling(family, shape):
    """Trees are deterministic, so the only random numbers are the target's own, drawn in the same order."""
    model = tiny.FAMILIES[family]()
    for seed in range(3):
        inputs = tiny.PROMPTS[family](seed, images=seed)
        sampling = dict(do_sample=True, temperature=0.8, top_p=0.9, max_new_tokens=20)
        set_seed(seed)
        plain = model.generate(**inputs, **sampling)
        answer = plain[0, inputs["input_ids"].shape[1] :].tolist()
        for drafter in (RandomDrafter(model), OracleDrafter(model, answer)):
            set_seed(seed)
            ours = model.generate(**inputs, **sampling, assistant_model=drafter, **SHAPES[shape])
            assert ours.tolist() == plain.tolist()


WARPERS = {
    "top_k": dict(top_k=7),
    "top_h": dict(top_h=0.6),
    "min_p": dict(min_p=0.05),
    "typical_p": dict(typical_p=0.6),
    "epsilon": dict(epsilon_cutoff=0.02),
    "eta": dict(eta_cutoff=0.02),
    "temperature": dict(temperature=1.7),
    "renormalize": dict(top_p=0.8, renormalize_logits=True),
    "penalties": dict(repetition_penalty=1.5, no_repeat_ngram_size=2, min_new_tokens=12, temperature=0.6),
}


@pytest.mark.parametrize("warper", WARPERS)
def test_every_warper_sees_its_own_prefix(warper):
    """transformers #48390: most processors are not safe on several positions at once; ours get one prefix each."""
    model, inputs = tiny.llava(), tiny.llava_prompt(1)
    sampling = {"do_sample": True, "max_new_tokens": 20, "top_k": 0, "temperature": 0.9, **WARPERS[warper]}
    set_seed(3)
    plain = model.generate(**inputs, **sampling, return_dict_in_generate=True, output_scores=True)
    answer = plain.sequences[0, inputs["input_ids"].shape[1] :].tolist()
    set_seed(3)
    drafter = OracleDrafter(model, answer)
    wanted = dict(return_dict_in_generate=True, output_scores=True, assistant_model=drafter, **SHAPES["wide"])
    ours = model.generate(**inputs, **sampling, **wanted)
    assert ours.sequences.tolist() == plain.sequences.tolist()
    torch.testing.assert_close(torch.cat(ours.scores), torch.cat(plain.scores), atol=1e-4, rtol=1e-4)


def test_a_drafter_that_overflows_does_not_end_the_request():
    model, inputs = tiny.llava(), tiny.llava_prompt(1)
    drafter = ViSpecDrafter.from_target(model)
    torch.nn.init.constant_(drafter.fc.weight, float("nan"))
    plain = model.generate(**inputs, max_new_tokens=9, do_sample=False)
    for shape in ("narrow", "chain"):
        budget = dict(max_new_tokens=9, assistant_model=drafter, **SHAPES[shape])
        assert model.generate(**inputs, do_sample=False, **budget).tolist() == plain.tolist()
    drawn = model.generate(**inputs, do_sample=True, eos_token_id=1, **budget)[0, inputs["input_ids"].shape[1] :]
    assert len(drawn) == 9 and drawn.max() < tiny.IMAGE_TOKEN  # all of them, and none that is suppressed


class ToyTarget:
    """A first-order Markov chain over a small vocabulary, as logits for any tree."""

    def __init__(self):
        generator = torch.Generator().manual_seed(5)
        self.table = torch.randn(VOCAB, VOCAB, generator=generator) * 1.5

    def verified(self, tree):
        return Verified(self.table[tree.tokens], torch.empty(0), 0, torch.empty(0), None, None)


def warp(ids, scores):
    """Temperature 0.7 and top-p 0.9, as `generate` applies them."""
    from transformers import TemperatureLogitsWarper, TopPLogitsWarper

    return TopPLogitsWarper(0.9)(ids, TemperatureLogitsWarper(0.7)(ids, scores))


PROCESSORS = {"raw": lambda ids, scores: scores, "temperature_top_p": warp}


def two_by_two(root, generator):
    """Root, two children, two grandchildren under each."""
    first = torch.randperm(VOCAB, generator=generator)[:2].tolist()
    second = [t for _ in first for t in torch.randperm(VOCAB, generator=generator)[:2].tolist()]
    return DraftTree(
        torch.tensor([root, *first, *second]),
        torch.tensor([-1, 0, 0, 1, 1, 2, 2]),
        torch.tensor([0, 1, 1, 2, 2, 2, 2]),
        torch.zeros(7),
    )


def wide_then_deep(root, generator):
    """Four children, a chain under the last."""
    first = torch.randperm(VOCAB, generator=generator)[:4].tolist()
    return DraftTree(
        torch.tensor([root, *first, 1, 2]),
        torch.tensor([-1, 0, 0, 0, 0, 4, 5]),
        torch.tensor([0, 1, 1, 1, 1, 2, 3]),
        torch.zeros(7),
    )


def sampled_chain(root, generator):
    """Three tokens drawn from a drafter's distribution that differs from the target's."""
    proposal = torch.softmax(torch.randn(VOCAB, VOCAB, generator=torch.Generator().manual_seed(9)), dim=-1)
    tokens, rows = [root], [proposal[root]]
    for _ in range(3):
        rows.append(proposal[tokens[-1]])
        tokens.append(int(torch.multinomial(rows[-1], 1, generator=generator)))
    return DraftTree.chain(torch.tensor(tokens), proposal_probs=torch.stack(rows))


class ToyConfig:
    return_dict_in_generate = output_scores = output_logits = output_hidden_states = output_attentions = False
    do_sample, max_length = True, 4


def draw(target, shape, processor, generator):
    """Three tokens after the root 0, through as many rounds as it takes."""

    def criteria(ids, scores):
        return torch.tensor([ids.shape[1] >= 4])

    answer = Answer(torch.tensor([[0]]), processor, criteria, ToyConfig, None)
    while not answer.finished:
        tree = shape(int(answer.ids[0, -1]), generator)
        walk(tree, target.verified(tree), answer)
    return answer.ids[0, 1:].tolist()


@pytest.mark.parametrize(
    "shape, processor, draws",
    [
        # only here drafts are accepted with a probability; of trees every token is the target's own draw
        *[(sampled_chain, processor, 6_000) for processor in PROCESSORS],
        *[(shape, "raw", 1_000) for shape in (two_by_two, wide_then_deep)],
        *[
            slow(shape, processor, 20_000)
            for shape in (two_by_two, wide_then_deep, sampled_chain)
            for processor in PROCESSORS
        ],
    ],
)
def test_distribution_of_three_tokens(shape, processor, draws):
    """Chi-square of many draws against the exact distribution of three tokens."""
    torch.manual_seed(1)
    target, process, generator = ToyTarget(), PROCESSORS[processor], torch.Generator().manual_seed(2)
    step = torch.stack([process(None, target.table[t : t + 1].clone())[0].softmax(-1) for t in range(VOCAB)])
    exact = (step[0][:, None, None] * step[:, :, None] * step[None]).flatten()
    counts = torch.zeros(VOCAB**3)
    for _ in range(draws):
        a, b, c = draw(target, shape, process, generator)
        counts[(a * VOCAB + b) * VOCAB + c] += 1
    assert counts[exact == 0].sum() == 0
    # Rare outcomes go into one bin, as the chi-square test needs expected counts of at least 5.
    common = exact * draws >= 5
    observed = torch.cat([counts[common], counts[~common].sum()[None]])
    expected = torch.cat([exact[common], exact[~common].sum()[None]]) * draws
    observed, expected = observed[expected > 0], expected[expected > 0]
    assert chisquare(observed.double(), expected.double() * observed.sum() / expected.double().sum()).pvalue > 1e-3


def test_rejected_chain_draft_is_never_emitted_again():
    """The residual distribution gives no weight to a token that was just rejected."""
    torch.manual_seed(0)
    target = ToyTarget()
    sharp = torch.full((2, VOCAB), 1e-6)
    sharp[:, 3] = 1 - 5e-6
    for _ in range(300):
        answer = Answer(torch.tensor([[0]]), PROCESSORS["raw"], lambda ids, s: torch.tensor([False]), ToyConfig, None)
        tree = DraftTree.chain(torch.tensor([0, 3]), proposal_probs=sharp)
        path, tokens = walk(tree, target.verified(tree), answer)
        assert (len(path) == 2) == (tokens[0] == 3)
