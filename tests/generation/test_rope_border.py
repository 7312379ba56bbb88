"""Rotary frequencies that change with length: the same text before, across and beyond the border."""

import pytest
import torch
from transformers import LlamaForCausalLM, Phi3Config, Phi3ForCausalLM

from . import tiny
from .batches import generate
from .doubles import OracleDrafter, RandomDrafter
from .test_lossless_greedy import SHAPES, assert_same, new_tokens, run

BORDER = 20
FACTORS = dict(rope_theta=100.0, factor=4.0)
ROPES = {
    "dynamic": (BORDER, dict(rope_type="dynamic", **FACTORS)),
    "longrope": (
        4 * BORDER,
        dict(
            rope_type="longrope",
            short_factor=[1.0] * 4,
            long_factor=[4.0] * 4,
            original_max_position_embeddings=BORDER,
            **FACTORS,
        ),
    ),
    "yarn": (4 * BORDER, dict(rope_type="yarn", original_max_position_embeddings=BORDER, **FACTORS)),
}


def llama(longest, rope):
    torch.manual_seed(0)
    config = tiny.LlamaConfig(**{**tiny._TEXT, "max_position_embeddings": longest, "rope_parameters": rope})
    return tiny.finish(LlamaForCausalLM(config))


@pytest.mark.parametrize("length", [4, 10, 30])
@pytest.mark.parametrize("rope", ROPES)
def test_same_text_on_both_sides_of_the_border(rope, length):
    """A fresh model each time: transformers' dynamic frequencies remember the longest request so far."""
    inputs, kwargs = {"input_ids": torch.arange(3, 3 + length)[None]}, dict(max_new_tokens=30, eos_token_id=1)
    expected = run(llama(*ROPES[rope]), inputs, **kwargs)
    for double in (RandomDrafter, lambda model: OracleDrafter(model, new_tokens(expected[0], inputs))):
        model = llama(*ROPES[rope])
        actual = run(model, inputs, assistant_model=double(model), **kwargs, **SHAPES["narrow"])
        assert_same(expected, actual, (rope, length))
        assert max(actual[0].speculation.drafted) > 1 or (rope == "dynamic" and length > BORDER)


@pytest.mark.parametrize("rope", ROPES)
def test_a_batch_goes_in_step_where_frequencies_may_change(rope):
    """`generate` computes all rows with the frequencies of the longest."""
    ids = torch.stack([torch.arange(3, 13), torch.cat([torch.zeros(4), torch.arange(20, 26)]).long()])
    inputs = {"input_ids": ids, "attention_mask": (ids > 0).long()}
    expected = generate(llama(*ROPES[rope]), inputs, max_new_tokens=30, eos_token_id=1)
    model = llama(*ROPES[rope])
    budget = dict(max_new_tokens=30, eos_token_id=1, **SHAPES["narrow"])
    actual = generate(model, inputs, assistant_model=RandomDrafter(model), **budget)
    assert actual.sequences.tolist() == expected.sequences.tolist()
    assert (max(actual.speculation.drafted) > 0) == (rope == "yarn")


def test_a_target_that_changes_its_cache_is_refused():
    """Phi-3 computes a prompt beyond its original length without the cache that it was given."""
    longest, rope = ROPES["longrope"]
    lengths = dict(max_position_embeddings=longest, original_max_position_embeddings=BORDER)
    config = Phi3Config(**{**tiny._TEXT, **lengths, "rope_parameters": rope | {"partial_rotary_factor": 1.0}})
    model = tiny.finish(Phi3ForCausalLM(config))
    with pytest.raises(ValueError, match="did not keep the prompt"):
        run(model, {"input_ids": torch.arange(3, 33)[None]}, assistant_model=RandomDrafter(model), **SHAPES["chain"])
