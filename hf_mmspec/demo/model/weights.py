"""The committed weights: vision tower, projector and LoRA in one small safetensors file.

Its border: this file's layout: `tower.*`, `projector.*`, `lora.MODULE.A|B`, and the tower's size in the metadata.
"""

import hashlib
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from hf_mmspec.modeling.file_modes import follow_umask

WEIGHTS = Path(__file__).parent / "assets" / "target.safetensors"
Tensors = dict[str, torch.Tensor]


def save_weights(path: Path, tower: Tensors, projector: Tensors, lora: Tensors, metadata: dict[str, str]) -> None:
    """Writes all three parts; floating point tensors become bfloat16."""
    parts = {"tower": tower, "projector": projector, "lora": lora}
    tensors = {f"{part}.{name}": tensor for part, group in parts.items() for name, tensor in group.items()}
    small = {k: v.to(torch.bfloat16).contiguous() if v.is_floating_point() else v for k, v in tensors.items()}
    save_file(small, path, metadata=metadata)
    follow_umask(path)


def read_weights(path: Path = WEIGHTS) -> tuple[dict[str, Tensors], dict[str, str]]:
    """The parts by name (`tower`, `projector`, `lora`) and the metadata."""
    if not path.is_file():
        raise FileNotFoundError(f"The weights of the embedded default are missing: {path}")
    parts: dict[str, Tensors] = {"tower": {}, "projector": {}, "lora": {}}
    with safe_open(path, "pt") as file:
        for key in file.keys():  # noqa: SIM118 (not a dict)
            part, _, name = key.partition(".")
            parts[part][name] = file.get_tensor(key)
        return parts, file.metadata() or {}


def fingerprint(path: Path = WEIGHTS) -> str:
    """Short hash of the committed weights, the key of the cache of merged models."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
