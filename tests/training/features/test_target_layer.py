"""Keys and values of a target's layer: those of its own cache, without rotation; other shapes are refused."""

import json
import math

import pytest
import torch
from transformers import LlamaConfig, Qwen3Config, Qwen3ForCausalLM
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

from hf_mmspec.auto import AutoDrafter
from hf_mmspec.training.drafters import untrained
from hf_mmspec.training.features.reading import Reader
from hf_mmspec.training.features.target_layer import LayerRows, TargetLayerError, reading_layer, shape_of
from hf_mmspec.training.recipes import RecipeError, family_recipe, read_recipe
from tests.generation import tiny
from tests.training.features.test_reading import answered_by, asked
from tests.training.robustness import world


@torch.no_grad()
@pytest.mark.parametrize("layer", [0, -1])
def test_they_are_the_targets_own(layer):
    """Turned by the rotary embedding they are what the target caches."""
    target, ids = tiny.llama(), torch.arange(3, 20)[None]
    with reading_layer(target, layer) as rows:
        cache = target(ids, use_cache=True).cache
    assert rows.keys_values.shape == (1, 17, 2, 2, 8)
    keys, values = rows.keys_values.permute(2, 0, 3, 1, 4)
    cos, sin = LlamaRotaryEmbedding(target.config)(keys, torch.arange(17)[None])
    stored = cache.layers[layer]
    torch.testing.assert_close(apply_rotary_pos_emb(keys, keys, cos, sin)[1], stored.keys)
    torch.testing.assert_close(values, stored.values)
    assert not any(module._forward_hooks for module in target.modules())


@torch.no_grad()
def test_records_of_a_padded_batch_hold_those_of_each_answer(pair):
    target, processor = pair
    answered = answered_by(target, processor, asked((1, 0)), tokens=5)
    reader = Reader(target, processor, kv_layer=1, dtype=torch.float64)
    for together, each in zip(reader.read(answered), answered, strict=True):
        (alone,) = reader.read([each])
        assert together.keys_values.shape == (len(each.ids) - 1, 2, *shape_of(target, 1))
        assert together.keys_values.dtype == torch.float64
        largest = alone.keys_values.abs().max().item()
        torch.testing.assert_close(together.keys_values, alone.keys_values, atol=1e-4 * largest, rtol=1e-3)
    assert all(record.keys_values is None for record in Reader(target, processor).read(answered))


def normed():
    sizes = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, head_dim=8)
    return Qwen3ForCausalLM(Qwen3Config(vocab_size=64, num_key_value_heads=2, **sizes))


def without_projections():
    target = tiny.llama()
    del target.model.layers[1].self_attn.k_proj
    return target


@pytest.mark.parametrize(
    "make, layer, words",
    [
        (tiny.llama, 2, "kv_loss_layer 2: the target has 2 layers"),
        (tiny.llama, -3, "kv_loss_layer -3: the target has 2 layers"),
        (normed, -1, "norms its keys"),
        (without_projections, 1, "no k_proj and v_proj"),
    ],
)
def test_what_cannot_be_read_is_refused(make, layer, words):
    with pytest.raises(TargetLayerError, match=words):
        shape_of(make(), layer)


def test_a_layer_that_computes_none_is_no_silent_zero():
    rows = LayerRows(2, 8)
    rows.see("v_proj", torch.zeros(1, 3, 16))
    with pytest.raises(TargetLayerError, match="computes no keys and values"):
        _ = rows.keys_values


def test_head_sizes_that_a_config_does_not_say():
    target = tiny.llama()
    target.config = LlamaConfig(**{**target.config.to_dict(), "head_dim": None, "num_key_value_heads": None})
    assert shape_of(target, 0) == (4, 8)


WITH_LAYER = ["stages.*.kv_loss_weight=0.1", "stages.*.kv_loss_target=target_layer"]


@pytest.mark.parametrize("family", ["vispec", "msd", "eagle2"])
def test_other_shapes_are_refused_before_anything_is_read(llava, family):
    recipe = read_recipe(family_recipe(family), [*WITH_LAYER, "drafter.num_key_value_heads=4"])
    with pytest.raises(RecipeError, match=r"has 4 key heads of size 8, .* layer -1 has 2 of 8: set .*heads=2 and"):
        untrained(recipe, *llava, [])
    assert untrained(read_recipe(family_recipe(family), WITH_LAYER), *llava, []).config.num_key_value_heads == 2
    far = read_recipe(family_recipe(family), [*WITH_LAYER, "stages.*.kv_loss_layer=9"])
    with pytest.raises(RecipeError, match='"target_layer": kv_loss_layer 9: the target has 2 layers, or take "self"'):
        untrained(far, *llava, [])


def test_a_drafter_learns_from_a_layer_and_says_so(llava, tmp_path):
    """From answers to a folder, with rows that stay, and with the drafter's own words among the records."""
    world.write_table(tmp_path / "prompts", 12)
    world.answered(tmp_path / "prompts", tmp_path / "answers", *llava)
    changes = [*WITH_LAYER, "drafter.accepted_rows=reuse", "stages.0.on_policy.share=0.25", "stages.*.epochs=0.5"]
    run = world.train_run(tmp_path, "msd", *changes, "stages.0.records=all", "evaluations=1")
    world.trained(run, *llava, tmp_path / "answers")
    made_by = json.loads((run.out / "training.json").read_text())
    losses, effort = made_by["losses"]["curriculum"], made_by["effort"]["curriculum"]
    assert losses.keys() == {"loss", "loss/soft_cross_entropy", "loss/feature_regression", "loss/kv"}
    assert losses["loss/kv"] > 0
    stage = made_by["recipe"]["stages"][0]
    assert effort["steps"] == math.ceil(stage["epochs"] * made_by["records"] / stage["batch_size"])
    assert effort["seconds"] > 0
    assert AutoDrafter.from_pretrained(run.out).config.accepted_rows == "reuse"
    assert "0.1 kv" in (run.out / "README.md").read_text()
