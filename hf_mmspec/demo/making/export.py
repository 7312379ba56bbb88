"""Writes what training made into the one committed file.

Its border: names. Training states keep PEFT's and our names, the file keeps those of `weights.py`.
"""

from pathlib import Path

from ..model.weights import Tensors, save_weights
from .checkpoint import load_state
from .stage_language import LORA_SCALE
from .stage_vision import VisionRecipe


def lora_tensors(adapter: Tensors) -> Tensors:
    """PEFT's `base_model.model.MODULE.lora_A.weight` to `MODULE.A`, and B alike."""
    tensors = {}
    for name, tensor in adapter.items():
        module = name.removeprefix("base_model.model.")
        for side in "AB":
            if module.endswith(f".lora_{side}.weight"):
                tensors[f"{module.removesuffix(f'.lora_{side}.weight')}.{side}"] = tensor
    assert len(tensors) == len(adapter), "every tensor of the adapter is a LoRA matrix"
    return tensors


def _part(state: Tensors, prefix: str) -> Tensors:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def export(folder: Path, vision: VisionRecipe, language: str, target: Path) -> None:
    """Takes `vision.pt` and the adapter of the stage `language` from the training folder."""
    learner, adapter = load_state(folder / "vision.pt"), load_state(folder / f"{language}.pt")
    if learner is None or adapter is None:
        raise FileNotFoundError(f"{folder} has no finished stages vision and {language}: run them first")
    metadata = {
        "width": str(vision.width),
        "depth": str(vision.depth),
        "lora_scale": str(LORA_SCALE),
        "vision_steps": str(learner["step"]),
        "language_stage": f"{language} {adapter['step']}",
    }
    state = learner["learner"]
    save_weights(
        target, _part(state, "tower."), _part(state, "projector."), lora_tensors(adapter["adapter"]), metadata
    )
