"""FLASH as published in its final form (SpecFLASH, arXiv 2505.12728), with or without its refiner.

The first version's head is another one; `recognise.py` refuses it.
"""

import torch

from .checkpoint import Checkpoint
from .decoder_fields import decoder_fields
from .errors import ConversionError
from .layout import Layout
from .rope import AUTHORS_THETA

_TABLE = "layers.rotary_emb.inv_freq"
RENAMES = {
    "A": "image_adaptor.queries",
    "hydra_projs.": "refiner.",
    "layers.slot_embeddings": "slot_embeddings",
    "layers.input_layernorm.": "layers.0.input_layernorm.",
    "layers.post_attn_layernorm.": "layers.0.post_attention_layernorm.",
    **{f"layers.{name}_proj.": f"layers.0.self_attn.{name}_proj." for name in "qkvo"},
    **{f"layers.{name}_proj.": f"layers.0.mlp.{name}_proj." for name in ("gate", "up", "down")},
}


def flash_layout(checkpoint: Checkpoint) -> Layout:
    """Much of their config is not read by their code, which fixes the MLP's width, the norm's epsilon and theta."""
    config, hidden = checkpoint.config, checkpoint.config.get("hidden_size")
    missing = [name for name in ("k", "compress_len") if config.get(name) is None]
    if missing:
        raise ConversionError(
            f"{checkpoint.source}: config.json does not say {', '.join(missing)}; get the authors' complete one"
        )
    _check_rotary_table(checkpoint)
    has_refiner = any(name.startswith("hydra_projs.") for name in checkpoint.tensors)
    fields = {
        **decoder_fields({**config, "rope_scaling": None, "rope_parameters": None, "rope_theta": AUTHORS_THETA}),
        "intermediate_size": 4 * hidden if hidden else 0,
        "num_attention_heads": config.get("sar_num_heads") or config["num_attention_heads"],
        "num_key_value_heads": 0,
        "head_dim": config.get("sar_head_dim") or 128,
        "rms_norm_eps": 1e-6,
        "num_hidden_layers": 1,
        "num_slots": config["k"],
        "num_latents": config["compress_len"],
        "fc_bias": config.get("bias", True),
        "attention_bias": True,
        "refiner": has_refiner,
        "refiner_size": hidden // 8 if hidden else 0,
        "image_token_id": config.get("image_token_id"),
        "released_rows": True,
    }
    title = "FLASH (final form)" if has_refiner else "FLASH (final form, base without refiner)"
    note = "released_rows is on: rows are laid out as in the authors' training"
    return Layout("flash", title, fields, RENAMES, notes=(note,))


def _check_rotary_table(checkpoint: Checkpoint) -> None:
    """Their table is part of the weights, so that it says what the training used."""
    if _TABLE in checkpoint.tensors:
        found = checkpoint.read(_TABLE).float()
        expected = AUTHORS_THETA ** -(torch.arange(len(found)) / len(found))
        if not torch.allclose(found, expected, rtol=1e-2):
            raise ConversionError(
                f"{checkpoint.source}: {_TABLE} is not that of theta {AUTHORS_THETA:.0f}, which FLASH's code fixes: "
                "other code must have trained it, so that it is not converted"
            )
