"""Training states survive a kill, and what is exported from them has the committed file's names."""

import pytest
import torch

from hf_mmspec.demo.making.checkpoint import load_state, save_state
from hf_mmspec.demo.making.export import export, lora_tensors
from hf_mmspec.demo.making.stage_vision import VisionRecipe


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
    assert set(lora_tensors(adapter)) == {"layers.3.mlp.up_proj.A", "layers.3.mlp.up_proj.B"}


def test_export_wants_finished_stages(tmp_path):
    with pytest.raises(FileNotFoundError, match="run them first"):
        export(tmp_path, VisionRecipe(), "real", tmp_path / "out.safetensors")
