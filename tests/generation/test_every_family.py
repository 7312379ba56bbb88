"""Every drafter family on every target: greedy decoding is identical, sampling draws from the target's distribution.

Weights are random, so that few drafts would be accepted; drafters of a few tokens only, those of the target's own
answer, are right often enough that every way through a round is taken.
"""

from functools import cache
from itertools import product

import pytest
import torch
from scipy.stats import chisquare
from transformers import set_seed

from hf_mmspec.generation.answer import Answer
from hf_mmspec.generation.loop import walk
from hf_mmspec.generation.target import Verified
from hf_mmspec.modeling import (
    FAMILIES,
    BorrowedParts,
    DraftBudget,
    Eagle3Config,
    Eagle3Drafter,
    FlashConfig,
    FlashDrafter,
    TargetPrompt,
)
from hf_mmspec.modeling.fixed_tree import EAGLE1_TREE
from tests.slow_parameters import others_slow, slow

from . import tiny
from .test_lossless_greedy import assert_same, new_tokens, run
from .test_sampling import ToyConfig

TAPS = {"feature_layers": [0, 1]}
# name -> (family, fields)
DRAFTERS = {
    "vispec": ("vispec", {}),
    "msd": ("msd", {}),
    "eagle": ("eagle", {}),
    "eagle_fixed": ("eagle", {"tree_choices": [list(path) for path in EAGLE1_TREE]}),
    "eagle3": ("eagle3", TAPS),
    "eagle3_narrow": ("eagle3", {**TAPS, "hidden_size": 16}),
    "flash": ("flash", {"num_latents": 4}),
    "flash_released": ("flash", {"num_latents": 4, "reference_compat": True}),
    "eagle3_adaptor": ("eagle3", {**TAPS, "visual": "adaptor"}),
    "eagle3_latents": ("eagle3", {**TAPS, "visual": "latents", "num_latents": 4}),
    "slots_adaptor": ("flash", {"visual": "adaptor"}),
    "eagle_skipped": ("eagle", {"visual": "skipped"}),
}
REUSING = ("vispec", "msd", "eagle", "eagle_fixed", "eagle3", "eagle3_narrow")
for _name in REUSING:
    DRAFTERS[f"{_name}_reusing"] = (DRAFTERS[_name][0], {**DRAFTERS[_name][1], "accepted_rows": "reuse"})
SHAPES = {
    "tree": dict(draft_mode="tree", draft_depth=4, draft_top_k=6, draft_total_tokens=26),
    "chain": dict(draft_mode="chain", draft_depth=4, draft_top_k=1, draft_total_tokens=5),
}
SAMPLING = dict(do_sample=True, temperature=0.8, top_p=0.9, max_new_tokens=12)


def build(name, target, draft_token_ids=None):
    torch.manual_seed(1)
    family, fields = DRAFTERS[name]
    return FAMILIES[family][1].from_target(target, draft_token_ids, initializer_range=0.3, **fields)


@cache
def answered(target):
    """A target, and for prompts with 0, 1 and 2 images what `generate` answers without a drafter."""
    model = tiny.FAMILIES[target]()
    prompts = [tiny.PROMPTS[target](seed=images, images=images) for images in range(3)]
    return model, [(inputs, run(model, inputs)) for inputs in prompts]


# Qwen's positions reach a drafter in one way, which accepted rows and slots do not change.
ON_QWEN = [
    name
    for name in DRAFTERS
    if name not in ("flash_released", "slots_adaptor") and (not name.endswith("_reusing") or name == "vispec_reusing")
]


@pytest.mark.parametrize(
    "target, name, shape",
    others_slow(
        product(tiny.FAMILIES, DRAFTERS, SHAPES),
        [*product(["llava"], DRAFTERS, SHAPES), *product(["qwen"], ON_QWEN, SHAPES)],
    ),
)
def test_greedy_is_identical(target, name, shape):
    """Ids, stream, scores, logits and cache; full vocabulary once, then that of the answer."""
    model, answers = answered(target)
    accepted = 0
    for images, (inputs, expected) in enumerate(answers):
        answer = torch.tensor(new_tokens(expected[0], inputs)).unique()
        drafter = build(name, model, None if images == 0 else answer)
        actual = run(model, inputs, assistant_model=drafter, **SHAPES[shape])
        assert_same(expected, actual, (name, shape, images))
        accepted += sum(actual[0].speculation.accepted)
    assert accepted > 0


@cache
def sampled(target):
    """A target, a prompt with two images, and what plain sampling answers."""
    model, answers = answered(target)
    inputs, _ = answers[2]
    set_seed(3)
    return model, inputs, model.generate(**inputs, **SAMPLING)


@pytest.mark.parametrize("name", DRAFTERS)
@pytest.mark.parametrize("target", tiny.FAMILIES)
def test_sampled_trees_draw_the_tokens_of_plain_sampling(target, name):
    model, inputs, plain = sampled(target)
    drafter = build(name, model, plain[0, inputs["input_ids"].shape[1] :].unique())
    set_seed(3)
    ours = model.generate(**inputs, **SAMPLING, assistant_model=drafter, **SHAPES["tree"])
    assert ours.tolist() == plain.tolist()


@pytest.mark.parametrize(
    "target, name",
    others_slow(product(tiny.FAMILIES, DRAFTERS), [*product(["llava"], DRAFTERS)]),
)
def test_sampled_chains_run_and_repeat(target, name):
    model, inputs, _ = sampled(target)
    drafter, answers = build(name, model), []
    for _ in range(2):
        set_seed(7)
        output = model.generate(**inputs, **SAMPLING, assistant_model=drafter, **SHAPES["chain"])
        answers.append(output.tolist())
    assert answers[0] == answers[1]


VOCAB, WIDTH = 4, 16


class MarkovTarget:
    """A first-order Markov chain as a target: what follows a token depends on it alone, and so do its features."""

    def __init__(self):
        generator = torch.Generator().manual_seed(5)
        self.table = torch.randn(VOCAB, VOCAB, generator=generator) * 1.2
        self.embeddings = torch.nn.Embedding.from_pretrained(torch.randn(VOCAB, WIDTH, generator=generator))
        self.head = torch.nn.Linear(WIDTH, VOCAB, bias=False)
        self.head.weight.data = torch.randn(VOCAB, WIDTH, generator=generator)
        self.features = torch.randn(VOCAB, WIDTH, generator=generator)

    def borrowed(self):
        return BorrowedParts(self.embeddings, self.head, VOCAB, VOCAB)

    def state(self, drafter, tokens):
        """A drafter's state after `tokens`, the last of which has no feature yet."""
        known = torch.tensor([tokens[:-1]])
        prompt = TargetPrompt(known, self.embeddings(known), self.features[known])
        return drafter.prefill(prompt, torch.tensor([tokens[-1]]), self.borrowed())

    def verified(self, tree):
        return Verified(self.table[tree.tokens], torch.empty(0), 0, torch.empty(0), None, None)


def toy_drafters():
    sizes = dict(
        vocab_size=VOCAB, hidden_size=WIDTH, intermediate_size=32, num_attention_heads=2, initializer_range=0.5
    )
    flash = FlashDrafter(FlashConfig(**sizes, num_slots=3))
    eagle3 = Eagle3Drafter(Eagle3Config(**sizes, feature_layers=[0], draft_vocab_size=2))
    eagle3.d2t.copy_(torch.tensor([0, 1]))  # tokens 0 and 2: the others can only come from the target
    return {"flash": flash.eval(), "eagle3, reduced vocabulary": eagle3.eval()}


@pytest.mark.parametrize("draws", [600, slow(2000)])
@pytest.mark.parametrize("name", ["flash", "eagle3, reduced vocabulary"])
def test_sampled_chain_keeps_the_targets_distribution(name, draws):
    """Chi-square of three sampled tokens, through as many p/q rounds as it takes, against the exact distribution."""
    torch.manual_seed(2)
    target, drafter, temperature = MarkovTarget(), toy_drafters()[name], 0.9
    step = (target.table / temperature).softmax(-1)
    exact = (step[0][:, None, None] * step[:, :, None] * step[None]).flatten()
    counts, states, accepted = torch.zeros(VOCAB**3), {}, 0
    for _ in range(draws):
        answer = Answer(
            torch.tensor([[1, 0]]),
            lambda ids, scores: scores / temperature,
            lambda ids, scores: torch.tensor([ids.shape[1] >= 5]),
            ToyConfig,
            None,
        )
        while not answer.finished:
            prefix = tuple(answer.ids[0].tolist())
            if prefix not in states:  # proposing leaves a state as it was, so that equal prefixes share theirs
                states[prefix] = target.state(drafter, prefix)
            budget = DraftBudget(5 - len(prefix), 1, 4, "chain")
            tree = drafter.propose(states[prefix], budget, temperature)
            path, _ = walk(tree, target.verified(tree), answer)
            accepted += len(path) - 1
        a, b, c = answer.ids[0, 2:].tolist()
        counts[(a * VOCAB + b) * VOCAB + c] += 1
    assert accepted > draws / 4
    common = exact * draws >= 5  # rare outcomes go into one bin, as the chi-square test needs expected counts
    observed = torch.cat([counts[common], counts[~common].sum()[None]]).double()
    expected = torch.cat([exact[common], exact[~common].sum()[None]]).double()
    assert chisquare(observed, expected / expected.sum() * observed.sum()).pvalue > 1e-3
