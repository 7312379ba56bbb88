"""The target adapter knows no family, so other decoders run too: the same tokens with scripted drafters.

Vision-language families are in `tests/families/`.
"""

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from hf_mmspec.modeling import ViSpecDrafter
from tests.families.parts import TEXT

from . import tiny
from .doubles import OracleDrafter
from .test_lossless_greedy import SHAPES, assert_same, new_tokens, run


def text_model(model_type, **fields):
    config = CONFIG_MAPPING[model_type](**{**TEXT, "num_hidden_layers": 4, **fields})
    return AutoModelForCausalLM.from_config(config, attn_implementation="eager")


def test_types_of_new_tokens_are_those_of_the_last():
    """GPT-2 adds an embedding for each type, and stock decoding goes on with the last one."""
    torch.manual_seed(0)
    model, inputs = tiny.finish(text_model("gpt2")), tiny.llava_prompt(0, images=0)
    types = {"token_type_ids": torch.full_like(inputs["input_ids"], 5)}
    expected = run(model, inputs | types, eos_token_id=1)
    assert expected[0].sequences.tolist() != run(model, inputs, eos_token_id=1)[0].sequences.tolist()
    oracle = OracleDrafter(model, new_tokens(expected[0], inputs))
    assert_same(
        expected, run(model, inputs | types, eos_token_id=1, assistant_model=oracle, **SHAPES["wide"]), "types"
    )


# Decoders that differ from Llama in what the adapter touches: other names of layers, sinks, windows on some layers,
# heads of several sizes.
TEXT_MODELS = {
    "gpt2": {},
    "gpt_oss": dict(sliding_window=6, num_local_experts=4, num_experts_per_tok=2),
    "qwen3": dict(use_sliding_window=True, sliding_window=6, max_window_layers=2),
    "cohere2": dict(sliding_window=6),
    "gemma4_text": {},
}


@pytest.mark.parametrize("model_type", TEXT_MODELS)
def test_text_decoders(model_type):
    torch.manual_seed(0)
    model, inputs = tiny.finish(text_model(model_type, **TEXT_MODELS[model_type])), tiny.llava_prompt(0, images=0)
    expected = run(model, inputs, eos_token_id=1)
    oracle = OracleDrafter(model, new_tokens(expected[0], inputs))
    for drafter in (oracle, ViSpecDrafter.from_target(model, initializer_range=0.3)):
        assert_same(expected, run(model, inputs, eos_token_id=1, assistant_model=drafter, **SHAPES["narrow"]), drafter)
