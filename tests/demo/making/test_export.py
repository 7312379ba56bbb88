"""Training states survive a kill, and what is exported from them has the committed file's names."""

import pytest
import torch

from hf_mmspec.demo.making.checkpoint import load_state, save_state
from hf_mmspec.demo.making.export import export, factor_tensors, peft_tensors, vision_parts
from hf_mmspec.demo.making.stage_vision import VisionRecipe
from hf_mmspec.demo.model.weights import read_weights


def test_state_is_replaced_whole(tmp_path):
    path = tmp_path / "deep" / "state.pt"
    assert load_state(path) is None
    save_state(path, {"step": 1})
    save_state(path, {"step": 2})
    assert load_state(path) == {"step": 2}
    assert [p.name for p in path.parent.iterdir()] == ["state.pt"]


def test_adapter_names_lose_their_wrapping():
    adapter = {
        "base_model.model.layers.3.mlp.up_proj.lora_A.weight": torch.zeros(2, 4),
        "base_model.model.layers.3.mlp.up_proj.lora_B.weight": torch.zeros(8, 2),
    }
    assert set(peft_tensors(adapter)) == {"layers.3.mlp.up_proj.A", "layers.3.mlp.up_proj.B"}


def test_factor_names_lose_their_slashes():
    state = {"layers/3/mlp/up_proj.a": torch.zeros(2, 4), "layers/3/mlp/up_proj.b": torch.zeros(8, 2)}
    assert set(factor_tensors(state)) == {"layers.3.mlp.up_proj.A", "layers.3.mlp.up_proj.B"}


def test_export_writes_the_parts_with_the_factors_that_were_learnt(tmp_path):
    state = {"layers/0/q.a": torch.ones(2, 4), "layers/0/q.b": torch.ones(8, 2)}
    save_state(tmp_path / "tasks.pt", {"factors": state, "step": 7})
    parts = {"tower": {"x": torch.ones(1)}, "projector": {"y": torch.ones(1)}, "lora": {"old.A": torch.ones(1)}}
    export(tmp_path, parts, {"width": "3"}, "tasks", tmp_path / "out.safetensors")
    written, metadata = read_weights(tmp_path / "out.safetensors")
    assert {part: set(tensors) for part, tensors in written.items()} == {
        "tower": {"x"},
        "projector": {"y"},
        "lora": {"layers.0.q.A", "layers.0.q.B"},
    }
    assert metadata == {"width": "3", "language_stage": "tasks 7"}


def test_export_wants_finished_stages(tmp_path):
    with pytest.raises(FileNotFoundError, match="run it first"):
        export(tmp_path, {}, {}, "tasks", tmp_path / "out.safetensors")
    with pytest.raises(FileNotFoundError, match="run it first"):
        vision_parts(tmp_path, VisionRecipe())
