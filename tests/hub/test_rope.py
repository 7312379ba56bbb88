"""Rotary positions survive conversion in every spelling: cos and sin at position 20000 are those of the training."""

import math

import pytest
import torch
from transformers.models.llama.configuration_llama import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from hf_mmspec import AutoDrafter
from hf_mmspec.hub import ConversionError, convert
from hf_mmspec.hub.rope import rope_parameters
from tests.hub.published import HEADS, HIDDEN

THETA = 70000.0
LLAMA3 = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 512,
}
# name -> rope_type and the other fields
SCALINGS = {
    "none": ("default", {}),
    "linear": ("linear", {"factor": 4.0}),
    "yarn": ("yarn", {"factor": 4.0, "original_max_position_embeddings": 512}),
    "llama3": ("llama3", LLAMA3),
    "mrope": ("mrope", {"mrope_section": [1, 1, 2]}),
    "mrope in new words": ("default", {"mrope_section": [1, 1, 2], "mrope_interleaved": True}),
}
POSITIONS = torch.tensor([[0, 1, 700, 20000]])


def cos_sin(embedding):
    return torch.cat(embedding(torch.zeros(1), POSITIONS))


def expected(name):
    """By transformers' own code for the plain type, and by the formula where that is short."""
    rope_type, fields = SCALINGS[name]
    rope_type = "default" if "mrope_section" in fields else rope_type
    config = LlamaConfig(
        hidden_size=HIDDEN,
        num_attention_heads=HEADS,
        max_position_embeddings=2048,
        rope_parameters={"rope_type": rope_type, "rope_theta": THETA, **({} if rope_type == "default" else fields)},
    )
    return cos_sin(LlamaRotaryEmbedding(config))


def spell(name, spelling):
    rope_type, fields = SCALINGS[name]
    if spelling == "rope_parameters":
        return {"rope_parameters": {"rope_type": rope_type, "rope_theta": THETA, **fields}}
    scaling = None if name == "none" else {spelling: rope_type, **fields}
    return {"rope_theta": THETA, "rope_scaling": scaling}


@pytest.mark.parametrize("spelling", ["type", "rope_type", "rope_parameters"])
@pytest.mark.parametrize("name", SCALINGS)
@pytest.mark.parametrize("layout", ["eagle", "eagle3", "eagle3_speculators", "vispec", "msd_qwen2_vl"])
def test_positions_survive(layout, name, spelling, write, tmp_path):
    def change(config, tensors):
        place = config.get("transformer_layer_config", config)
        for old in ("rope_theta", "rope_scaling", "rope_parameters"):
            place.pop(old, None)
        place.update(spell(name, spelling))

    convert(write(layout, change), tmp_path / "ours")
    drafter = AutoDrafter.from_pretrained(tmp_path / "ours")
    assert torch.equal(cos_sin(drafter.rotary_emb), expected(name))
    for field, value in SCALINGS[name][1].items():
        assert drafter.config.rope_parameters[field] == value  # so that an export can write it


def test_linear_by_hand():
    config = LlamaConfig(
        hidden_size=8,
        num_attention_heads=1,
        rope_parameters=rope_parameters({"rope_scaling": {"type": "linear", "factor": 4.0}}),
    )
    cos = LlamaRotaryEmbedding(config)(torch.zeros(1), POSITIONS)[0]
    assert cos[0, 3, 1].item() == pytest.approx(math.cos(20000 / 4 / 10000 ** (1 / 4)), abs=1e-4)


@pytest.mark.parametrize("layout", ["eagle3", "vispec", "msd_llava"])
def test_without_a_word_theta_is_the_authors_not_the_target_s(layout, write, tmp_path):
    convert(write(layout), tmp_path / "ours")
    assert AutoDrafter.from_pretrained(tmp_path / "ours").config.rope_parameters["rope_theta"] == 10000.0


def test_flash_fixes_its_own(write, tmp_path):
    """Their code reads neither theta nor epsilon from the config."""
    convert(write("flash"), tmp_path / "ours")
    config = AutoDrafter.from_pretrained(tmp_path / "ours").config
    assert (config.rope_parameters["rope_theta"], config.rms_norm_eps) == (10000.0, 1e-6)


def test_flash_s_stored_table_must_agree(write, tmp_path):
    def other(config, tensors):
        tensors["layers.rotary_emb.inv_freq"] = tensors["layers.rotary_emb.inv_freq"] / 4

    with pytest.raises(ConversionError, match=r"inv_freq is not that of theta 10000"):
        convert(write("flash", other), tmp_path / "ours")


def test_contradicting_thetas():
    with pytest.raises(ConversionError, match=r"rope_theta 1.0 and rope_parameters\.rope_theta 2.0"):
        rope_parameters({"rope_theta": 1.0, "rope_parameters": {"rope_theta": 2.0}})
    assert rope_parameters({"rope_theta": 2.0, "rope_parameters": {"rope_theta": 2.0}})["rope_theta"] == 2.0


def test_what_no_drafter_here_does():
    with pytest.raises(ConversionError, match="layer type"):
        rope_parameters({"rope_parameters": {"full_attention": {"rope_theta": 1.0}}})
    with pytest.raises(ConversionError, match="partial_rotary_factor"):
        rope_parameters({"partial_rotary_factor": 0.5})
