"""Writes what training made into the one committed file.

Its border: names. Training states keep PEFT's and our names, the file keeps those of `weights.py`.
"""

from pathlib import Path

from ..model.weights import Tensors, save_weights
from .checkpoint import load_state
from .low_rank import LORA_SCALE
from .stage_vision import VisionRecipe


def peft_tensors(adapter: Tensors) -> Tensors:
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


def vision_parts(folder: Path, vision: VisionRecipe) -> tuple[dict[str, Tensors], dict[str, str]]:
    """Tower and projector of the finished stage `vision`, and the metadata that describes them."""
    learner = load_state(folder / "vision.pt")
    if learner is None:
        raise FileNotFoundError(f"{folder} has no finished stage vision: run it first")
    state = learner["learner"]
    metadata = {
        "width": str(vision.width),
        "depth": str(vision.depth),
        "lora_scale": str(LORA_SCALE),
        "vision_steps": str(learner["step"]),
    }
    return {"tower": _part(state, "tower."), "projector": _part(state, "projector.")}, metadata


def factor_tensors(state: Tensors) -> Tensors:
    """The factors of the stage `tasks`, `layers/0/MODULE.a`, to `MODULE.A`, and B alike."""
    return {f"{name[:-2].replace('/', '.')}.{name[-1].upper()}": tensor for name, tensor in state.items()}


def export(folder: Path, parts: dict[str, Tensors], metadata: dict[str, str], stage: str, target: Path) -> None:
    """Writes tower and projector of `parts` with the factors that `stage` has learnt."""
    state = load_state(folder / f"{stage}.pt")
    if state is None:
        raise FileNotFoundError(f"{folder} has no finished stage {stage}: run it first")
    metadata = {**metadata, "language_stage": f"{stage} {state['step']}"}
    save_weights(target, parts["tower"], parts["projector"], factor_tensors(state["factors"]), metadata)
