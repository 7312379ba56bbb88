"""Greedy decoding with a drafter gives what `generate` gives without one: ids, stream, scores, logits, stops."""

from functools import cache
from itertools import product

import pytest
import torch
from transformers import LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from tests.slow_parameters import others_slow

from . import tiny
from .doubles import OracleDrafter, RandomDrafter

NEW = 22
SHAPES = {
    "chain": dict(draft_mode="chain", draft_depth=4, draft_top_k=1, draft_total_tokens=5),
    "narrow": dict(draft_mode="tree", draft_depth=6, draft_top_k=2, draft_total_tokens=13),
    "wide": dict(draft_mode="tree", draft_depth=3, draft_top_k=8, draft_total_tokens=30),
    "none": dict(draft_depth=0),
}


class ParityCriterion(StoppingCriteria):
    """Stops where a property of the whole prefix holds; refuses to see a block."""

    def __init__(self):
        self.last = None

    def __call__(self, input_ids, scores, **kwargs):
        assert self.last is None or input_ids.shape[1] == self.last + 1, "saw a block of tokens"
        self.last = input_ids.shape[1]
        return torch.tensor([int(input_ids[0, -6:].sum()) % 11 == 3])


class CountingProcessor(LogitsProcessor):
    """Keeps state and counts prefixes; a block would break its count."""

    def __init__(self):
        self.seen = []

    def __call__(self, input_ids, scores):
        self.seen.append(input_ids.shape[1])
        scores[:, (7 * len(self.seen)) % scores.shape[1]] += 3
        return scores


def prefix_fn(batch_id, ids):
    """A grammar that random drafts break: the next token's parity alternates with the length."""
    return [t for t in range(3, 116) if t % 2 == ids.shape[0] % 2]


REQUESTS = {
    "plain": lambda: {},
    "repetition": lambda: dict(repetition_penalty=1.3),
    "no_repeat_ngram": lambda: dict(no_repeat_ngram_size=2),
    "min_new_tokens": lambda: dict(min_new_tokens=9),
    "forced_eos": lambda: dict(forced_eos_token_id=5),
    "suppress": lambda: dict(suppress_tokens=[tiny.IMAGE_TOKEN, 38, 44, 26], begin_suppress_tokens=[20, 63]),
    "bad_words": lambda: dict(bad_words_ids=[[44, 39], [38]]),
    "sequence_bias": lambda: dict(sequence_bias={(38,): -4.0, (44, 20): 5.0}),
    "prefix_constraint": lambda: dict(prefix_allowed_tokens_fn=prefix_fn),
    "several_eos": lambda: dict(eos_token_id=[2, 49, 26, 97, 67]),
    "custom_criterion": lambda: dict(stopping_criteria=StoppingCriteriaList([ParityCriterion()])),
    "custom_processor": lambda: dict(logits_processor=LogitsProcessorList([CountingProcessor()])),
    "exponential_decay": lambda: dict(exponential_decay_length_penalty=(4, 1.4)),
}


class Recorder(BaseStreamer):
    """Collects what is streamed; complains about anything after the end."""

    def __init__(self):
        self.values, self.ended = [], False

    def put(self, value):
        assert not self.ended
        self.values += value.flatten().tolist()

    def end(self):
        assert not self.ended
        self.ended = True


def run(model, inputs, **kwargs):
    streamer = Recorder()
    output = model.generate(
        **inputs,
        **{"do_sample": False, "max_new_tokens": NEW, "eos_token_id": tiny.EOS, **kwargs},
        streamer=streamer,
        return_dict_in_generate=True,
        output_scores=True,
        output_logits=True,
    )
    assert streamer.ended
    return output, streamer.values


def assert_same(expected, actual, what):
    (plain, plain_stream), (output, stream) = expected, actual
    assert output.sequences.tolist() == plain.sequences.tolist(), what
    assert stream == plain_stream, what
    for name in ("scores", "logits"):
        ours, theirs = getattr(output, name), getattr(plain, name)
        assert len(ours) == len(theirs), (what, name)
        torch.testing.assert_close(torch.cat(ours), torch.cat(theirs), atol=1e-4, rtol=1e-4)
    assert output.cache.get_seq_length() == plain.cache.get_seq_length(), what
    for mine, other in zip(output.cache.layers, plain.cache.layers, strict=True):
        torch.testing.assert_close(mine.keys, other.keys, atol=1e-4, rtol=1e-4)


def new_tokens(output, inputs):
    return output.sequences[0, inputs["input_ids"].shape[1] :].tolist()


@cache
def target(name, attention):
    return tiny.FAMILIES[name](attention)


IN_EAGER = ("plain", "several_eos", "custom_criterion", "prefix_constraint")


@pytest.mark.parametrize(
    "name, attention, kind, first",
    others_slow(
        product(tiny.FAMILIES, ("sdpa", "eager"), REQUESTS, (0, 4)),
        [*product(tiny.FAMILIES, ["sdpa"], REQUESTS, [0]), *product(tiny.FAMILIES, ["eager"], IN_EAGER, [0])],
    ),
)
def test_same_as_generate(name, attention, kind, first):
    """Four prompts with 0, 1 or 2 images each: the random drafter and the oracle meet each of the four shapes once."""
    model, kind_number = target(name, attention), list(REQUESTS).index(kind)
    for index in range(first, first + len(SHAPES)):
        inputs = tiny.PROMPTS[name](seed=index, images=(index + kind_number) % 3)
        expected = run(model, inputs, **REQUESTS[kind]())
        shapes = list(SHAPES.items())
        for offset, drafter in enumerate(
            [RandomDrafter(model), OracleDrafter(model, new_tokens(expected[0], inputs))]
        ):
            shape, budget = shapes[(index + offset) % len(shapes)]
            actual = run(model, inputs, assistant_model=drafter, **budget, **REQUESTS[kind]())
            assert_same(expected, actual, (kind, index, shape, type(drafter).__name__))
            if isinstance(drafter, OracleDrafter) and shape != "none" and len(drafter.answer) > 6:
                assert actual[0].speculation.acceptance_length > 1.5  # the stops really fell inside blocks
