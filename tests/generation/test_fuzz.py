"""Requests put together at random, always compared with plain `generate`: ids, stream, scores, logits and cache.

Looks for combinations that nobody thought of; the single features have their own tests.
"""

from functools import cache

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import LogitsProcessorList, StoppingCriteriaList, WatermarkingConfig, set_seed

from hf_mmspec.modeling import FAMILIES

from . import tiny
from .doubles import OracleDrafter, RandomDrafter
from .test_lossless_greedy import CountingProcessor, ParityCriterion, assert_same, new_tokens, prefix_fn, run

TARGETS = {
    "llava": (tiny.llava, tiny.llava_prompt),
    "qwen": (tiny.qwen, tiny.qwen_prompt),
    "windows": (lambda: tiny.sliding_llava(window=12), tiny.llava_prompt),
}
FAMILY_FIELDS = {
    "vispec": {},
    "msd": {},
    "eagle": {},
    "eagle3": {"feature_layers": [0, 1]},
    "flash": {"num_latents": 4},
}
PER_TOKEN = ("input_ids", "attention_mask", "mm_token_type_ids")
NEVER = 1  # an EOS that no prompt leads to: most answers should be long

# Called for every request, since processors and criteria keep state.
PROCESSORS = {
    "repetition": lambda: dict(repetition_penalty=1.3),
    "ngrams": lambda: dict(no_repeat_ngram_size=2, encoder_no_repeat_ngram_size=3),
    "bias": lambda: dict(sequence_bias={(38,): -4.0, (44, 20): 5.0}, bad_words_ids=[[39, 44], [64]]),
    "forced": lambda: dict(forced_bos_token_id=7, forced_eos_token_id=5),
    "suppressed": lambda: dict(suppress_tokens=[tiny.IMAGE_TOKEN, 44], begin_suppress_tokens=[20, 63]),
    "least": lambda: dict(min_new_tokens=7, exponential_decay_length_penalty=(3, 1.4)),
    "grammar": lambda: dict(prefix_allowed_tokens_fn=prefix_fn),
    "watermark": lambda: dict(watermarking_config=WatermarkingConfig(bias=2.5, seeding_scheme="selfhash")),
    "own": lambda: dict(logits_processor=LogitsProcessorList([CountingProcessor()])),
    "criterion": lambda: dict(stopping_criteria=StoppingCriteriaList([ParityCriterion()])),
    "states": lambda: dict(output_hidden_states=True),
    "chunks": lambda: dict(prefill_chunk_size=5),
}
WARPERS = {
    "temperature": dict(temperature=0.7),
    "top_p": dict(temperature=1.3, top_p=0.8),
    "min_p": dict(min_p=0.05, renormalize_logits=True),
    "typical": dict(typical_p=0.6, top_k=20),
}
# The same cases in every run, however many there are.
SETTINGS = dict(deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
BUDGETS = st.fixed_dictionaries(
    dict(
        draft_mode=st.sampled_from(["tree", "tree", "chain"]),
        draft_depth=st.integers(0, 30),
        draft_top_k=st.one_of(st.integers(1, 10), st.just(2 * tiny.VOCAB)),
        draft_total_tokens=st.integers(1, 64),
    )
)


@cache
def target(name):
    return TARGETS[name][0]()


@cache
def drafter(family, name):
    torch.manual_seed(1)
    return FAMILIES[family][1].from_target(target(name), initializer_range=0.3, **FAMILY_FIELDS[family])


def prompt(name, seed, images, padding):
    inputs = TARGETS[name][1](seed, images, length=1 + seed % 9)
    return {k: torch.nn.functional.pad(v, (padding, 0)) if k in PER_TOKEN else v for k, v in inputs.items()}


REQUESTS = dict(
    name=st.sampled_from(sorted(TARGETS)),
    seed=st.integers(0, 99),
    images=st.integers(0, 3),
    padding=st.sampled_from([0, 0, 3]),
    limit=st.integers(1, 24),
    eos_at=st.one_of(st.none(), st.integers(0, 20)),
    processors=st.sets(st.sampled_from(sorted(PROCESSORS)), max_size=3),
    warper=st.one_of(st.none(), st.sampled_from(sorted(WARPERS))),
    kind=st.sampled_from(["random", "oracle", *sorted(FAMILY_FIELDS)]),
    budget=BUDGETS,
)


def check(name, seed, images, padding, limit, eos_at, processors, warper, kind, budget):
    model, inputs = target(name), prompt(name, seed, images, padding)
    sampling = {} if warper is None else dict(do_sample=True, **WARPERS[warper])
    if warper is not None:
        budget = budget | dict(draft_mode="tree")  # sampled chains draw other random numbers than plain sampling

    def request(eos, **kwargs):
        set_seed(seed)
        settings = {key: value for name in sorted(processors) for key, value in PROCESSORS[name]().items()}
        return run(model, inputs, max_new_tokens=limit, eos_token_id=eos, **settings, **sampling, **kwargs)

    expected, eos = request(NEVER), NEVER
    answer = new_tokens(expected[0], inputs)
    if eos_at is not None:
        eos = [NEVER, answer[min(eos_at, len(answer) - 1)]]
        expected = request(eos)
    doubles = {"random": lambda: RandomDrafter(model), "oracle": lambda: OracleDrafter(model, answer)}
    ours = doubles[kind]() if kind in doubles else drafter(kind, name)
    actual = request(eos, assistant_model=ours, **budget)
    assert_same(expected, actual, "this request")
    if "states" in processors:
        for step, other in zip(actual[0].hidden_states, expected[0].hidden_states, strict=True):
            torch.testing.assert_close(step, other, atol=1e-4, rtol=1e-4)


@settings(max_examples=15, **SETTINGS)
@given(**REQUESTS)
def test_any_request(**case):
    check(**case)


@pytest.mark.slow
@settings(max_examples=40, **SETTINGS)
@given(**REQUESTS)
def test_many_requests(**case):
    check(**case)
