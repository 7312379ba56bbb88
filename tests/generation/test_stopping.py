"""Stops inside accepted blocks: EOS, length, stop strings, drafted EOS; nothing beyond the cut is returned."""

import pytest
import torch
from transformers import TextIteratorStreamer

from . import tiny
from .doubles import OracleDrafter, RandomDrafter
from .spelling import UNSPELLABLE, spelling_tokenizer
from .test_lossless_greedy import SHAPES, assert_same, new_tokens, run


class Target:
    """A model, a prompt with a picture, and what it answers without a drafter: the same for every shape of drafts, so
    each answer is made once."""

    def __init__(self, family):
        self.model, self.inputs = tiny.FAMILIES[family](), tiny.PROMPTS[family](seed=3, images=1)
        self._answers = {}

    def plain(self, **kwargs):
        key = repr(sorted(kwargs.items()))
        if key not in self._answers:
            self._answers[key] = run(self.model, self.inputs, **kwargs)
        return self._answers[key]

    def oracle(self, **kwargs):
        """One that knows the answer that is made without any stop."""
        return OracleDrafter(self.model, new_tokens(self.plain(eos_token_id=1, **kwargs)[0], self.inputs))


@pytest.fixture(scope="module", params=tiny.FAMILIES)
def target(request):
    return Target(request.param)


@pytest.fixture(scope="module")
def tokenizer():
    return spelling_tokenizer()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("place", [0, 1, 2, 3, 7, 11])
def test_eos_in_the_middle_of_a_block(target, shape, place):
    """transformers #47912: the block ran on past an EOS that was accepted inside it."""
    oracle = target.oracle()
    eos = oracle.answer[place]
    actual = run(target.model, target.inputs, eos_token_id=eos, assistant_model=oracle, **SHAPES[shape])
    assert_same(target.plain(eos_token_id=eos), actual, (shape, place))
    answer = new_tokens(actual[0], target.inputs)
    assert answer[-1] == eos and answer.count(eos) == 1


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("limit", [1, 2, 3, 5, 6])
def test_length_cap_and_eos_in_one_block(target, shape, limit):
    """sglang #31599: whichever of cap and EOS comes first decides."""
    oracle = target.oracle()
    for eos in (oracle.answer[2], 1):
        kwargs = dict(max_new_tokens=limit, eos_token_id=eos)
        actual = run(target.model, target.inputs, assistant_model=oracle, **SHAPES[shape], **kwargs)
        assert_same(target.plain(**kwargs), actual, (shape, limit, eos))


@pytest.mark.parametrize("shape", SHAPES)
def test_stop_strings(target, tokenizer, shape):
    """vllm #47616, transformers #48039: scores and ids end with the text, wherever in a block the string ends."""
    spellable = dict(suppress_tokens=UNSPELLABLE)
    model, oracle = target.model, target.oracle(**spellable)
    for place in range(1, 9):
        stop = tokenizer.decode(oracle.answer[place - 1 : place + 1])
        kwargs = dict(stop_strings=[stop], tokenizer=tokenizer, eos_token_id=1, **spellable)
        actual = run(model, target.inputs, assistant_model=oracle, **SHAPES[shape], **kwargs)
        assert_same(target.plain(**kwargs), actual, (shape, stop))
        scores = model.compute_transition_scores(actual[0].sequences, actual[0].scores, normalize_logits=True)
        assert scores.shape[1] == len(actual[0].scores)


def test_a_drafted_eos_is_only_a_candidate(target):
    """openvino.genai #3293: the drafter proposes EOS, the target goes on."""

    class Eager(RandomDrafter):
        def next_drafts(self, state, budget):
            for _ in range(budget.levels):
                yield tiny.EOS, [7, 8][: budget.top_k - 1]

    for shape in SHAPES.values():
        kwargs = dict(suppress_tokens=[tiny.IMAGE_TOKEN, tiny.EOS])
        actual = run(target.model, target.inputs, assistant_model=Eager(target.model), **shape, **kwargs)
        assert_same(target.plain(**kwargs), actual, shape)


def test_max_new_tokens_zero_is_what_generate_makes_of_it(target):
    request, outcomes = dict(**target.inputs, max_new_tokens=0, do_sample=False), []
    for kwargs in ({}, {"assistant_model": RandomDrafter(target.model)}):
        try:
            outcomes.append(target.model.generate(**request, **kwargs).tolist())
        except ValueError as error:
            outcomes.append(str(error))
    assert outcomes[0] == outcomes[1]


def test_text_streamer_gets_the_text_once(target, tokenizer):
    """The prompt is skipped once, nothing comes twice, and the stream ends."""
    inputs, streamer = target.inputs, TextIteratorStreamer(tokenizer, skip_prompt=True, timeout=5)
    kwargs = dict(max_new_tokens=12, do_sample=False, assistant_model=target.oracle(), **SHAPES["narrow"])
    output = target.model.generate(**inputs, **kwargs, streamer=streamer)
    assert "".join(streamer) == tokenizer.decode(output[0, inputs["input_ids"].shape[1] :])


def test_hidden_states_of_some_layers():
    model, inputs = tiny.llama(), tiny.llava_prompt(1, images=0)
    wanted = dict(output_hidden_states=[0, 1], eos_token_id=1)
    plain, _ = run(model, inputs, **wanted)
    ours, _ = run(model, inputs, **wanted, assistant_model=RandomDrafter(model), **SHAPES["narrow"])
    for mine, theirs in zip(ours.hidden_states, plain.hidden_states, strict=True):
        assert [layer is None for layer in mine] == [layer is None for layer in theirs]
        torch.testing.assert_close(mine[0], theirs[0], atol=1e-4, rtol=1e-4)


def test_hidden_states_and_attentions_end_at_the_same_token():
    """One entry per new token, each as a step of `generate` gives it."""
    for name in tiny.FAMILIES:
        model = tiny.FAMILIES[name]("eager")
        inputs = tiny.PROMPTS[name](seed=1, images=2)
        wanted = dict(output_hidden_states=True, output_attentions=True)
        plain, _ = run(model, inputs, **wanted)
        for shape in SHAPES.values():
            oracle = OracleDrafter(model, new_tokens(plain, inputs))
            ours, _ = run(model, inputs, assistant_model=oracle, **shape, **wanted)
            for what in ("hidden_states", "attentions"):
                steps = list(zip(getattr(ours, what), getattr(plain, what), strict=True))
                for mine, theirs in steps:
                    for a, b in zip(mine, theirs, strict=True):
                        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
