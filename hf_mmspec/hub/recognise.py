"""Whose checkpoint it is: by the names of its tensors, then by its config; doubt is an error.

Layouts that are known but not supported are refused here, with the reason.
"""

import json
from collections.abc import Callable
from typing import Any

from ..modeling import FAMILIES
from .checkpoint import Checkpoint
from .eagle3_layout import LAYER_ID_CONVENTIONS, eagle3_layout
from .eagle_layout import eagle_layout, msd_layout
from .errors import ConversionError
from .flash_layout import flash_layout
from .layout import Layout
from .vispec_layout import vispec_layout

_LAYOUTS: dict[str, Callable[[Checkpoint], Layout]] = {
    "eagle": eagle_layout,
    "eagle3": eagle3_layout,
    "flash": flash_layout,
    "msd": msd_layout,
    "vispec": vispec_layout,
}
# What only one family's tensors are called, in order; the last is shared.
_SIGNS = {
    ("flash",): ("layers.slot_embeddings", "hydra_projs.", "residual_gate", "fc_gate.", "layers.post_attn_layernorm."),
    ("vispec",): ("imadpt.", "img_fc."),
    ("eagle3",): ("midlayer.", "d2t", "t2d", "layers.0.hidden_norm."),
    ("eagle", "msd"): ("layers.0.self_attn.", "transformer.self_attn."),
}
_MOST_LAYERS = 8  # published drafters have one
# `model_type` of the authors' configs for EAGLE on a plain language model
_TEXT_MODELS = ("llama", "mistral", "mixtral", "qwen2", "qwen3")
_TEXT_ARCHITECTURES = ("LlamaForCausalLM", "MixtralForCausalLM", "Qwen2ForCausalLM")
# targets of the newer MSD drafters, which compress images in a way that is not published; spelt without punctuation
_NEWER_MSD = ("llavanext", "llavav16", "llava16", "qwen25vl")


def check_config(source: str, config: dict[str, Any]) -> None:
    """What the config alone tells, so that no weights are fetched for nothing.

    Raises:
        ConversionError: one of our own drafters, a whole model, or a kind of speculator that has no family here.
    """
    if config.get("model_type") in FAMILIES:
        raise ConversionError(f"{source} is a drafter of this library already: load it with AutoDrafter")
    nested = config.get("text_config") or {}
    layers = config.get("num_hidden_layers") or nested.get("num_hidden_layers") or 0
    if layers > _MOST_LAYERS or (nested and "hidden_size" not in config):
        raise ConversionError(f"{source} is a whole model, not a drafter: give the repository of the drafter")
    kind = config.get("speculators_model_type")
    if kind not in (None, "eagle", "eagle3"):
        raise ConversionError(f'{source}: speculators\' "{kind}" is no family of this library (eagle and eagle3 are)')


def recognise(checkpoint: Checkpoint, family: str | None = None, layer_ids: str | None = None) -> Layout:
    """The checkpoint's layout.

    Args:
        checkpoint: whose names and config are known.
        family: what the user says it is; settles a doubt.
        layer_ids: see `eagle3_layout.feature_layers`.

    Raises:
        ConversionError: unknown, ambiguous, unsupported, or not what the user says.
    """
    if family is not None and family not in _LAYOUTS:
        raise ConversionError(f"--family {family}: choose one of {', '.join(_LAYOUTS)}")
    _refuse_flash_v1(checkpoint)
    possible = _families_of(checkpoint)
    if family is not None and family not in possible:
        raise ConversionError(
            f"{checkpoint.source}: its tensors have the names of {' or '.join(possible)}, not {family}"
        )
    found = family or (possible[0] if len(possible) == 1 else _eagle_or_msd(checkpoint))
    if found == "msd":
        _refuse_newer_msd(checkpoint, hint="")
    if found == "eagle3":
        return eagle3_layout(checkpoint, _known_convention(layer_ids))
    if layer_ids is not None:
        raise ConversionError(f"--layer-ids is for EAGLE-3; {checkpoint.source} is {found}")
    return _LAYOUTS[found](checkpoint)


def _families_of(checkpoint: Checkpoint) -> tuple[str, ...]:
    for families, signs in _SIGNS.items():
        if any(name.startswith(signs) for name in checkpoint.tensors):
            return families
    some = ", ".join(sorted(checkpoint.tensors)[:4])
    raise ConversionError(f"{checkpoint.source}: no layout that is known here has tensors like {some}")


def _eagle_or_msd(checkpoint: Checkpoint) -> str:
    """Their names are the same, so the config decides: MSD's code takes `llava` and `qwen2_vl`, and its LLaVA is the
    authors' own; FLASH's and ViSpec's authors trained EAGLE on others."""
    config = checkpoint.config
    if "transformer_layer_config" in config:
        return "eagle"
    _refuse_newer_msd(checkpoint, hint=" If it is an EAGLE drafter instead, say --family eagle.")
    model_type, architectures = config.get("model_type"), " ".join(config.get("architectures") or [])
    if model_type in _TEXT_MODELS or (model_type is None and architectures in _TEXT_ARCHITECTURES):
        return "eagle"
    if model_type == "qwen2_vl" or (model_type == "llava" and "LlavaForConditionalGeneration" not in architectures):
        return "msd"
    raise ConversionError(
        f"{checkpoint.source}: MSD and EAGLE-1/2 have the same tensors, and config.json (model_type {model_type}, "
        f"architectures {architectures or 'none'}) fits either: say --family msd or --family eagle"
    )


def _refuse_flash_v1(checkpoint: Checkpoint) -> None:
    if any(name.startswith("layers.ar_proj.") for name in checkpoint.tensors):
        raise ConversionError(
            f"{checkpoint.source} is FLASH's first version (layers.ar_proj). Its released code cannot run, as it "
            "reads a weight that it never makes, so that there is nothing to be equal to: use one of the final form "
            "(SpecFLASH)."
        )


def _refuse_newer_msd(checkpoint: Checkpoint, hint: str) -> None:
    named = _plain(json.dumps(checkpoint.config) + checkpoint.source.rstrip("/").rpartition("/")[2])
    is_text = checkpoint.config.get("model_type") in _TEXT_MODELS
    names_target = not is_text and any(target in named for target in _NEWER_MSD)
    if names_target or "kmeans" in named + _plain(checkpoint.readme):
        raise ConversionError(
            f"{checkpoint.source} looks like one of the newer MSD drafters (LLaVA-1.6, Qwen2.5-VL), which compress "
            "images by k-means inside the drafter; how is not published, so that it would draft wrongly here. Use an "
            f"MSD drafter for LLaVA-1.5 or Qwen2-VL, or train one with `mmspec train`.{hint}"
        )


def _plain(text: str) -> str:
    """Lower case without punctuation, as names are spelt in many ways."""
    return "".join(letter for letter in text.lower() if letter.isalnum())


def _known_convention(layer_ids: str | None) -> str | None:
    if layer_ids is not None and layer_ids not in LAYER_ID_CONVENTIONS:
        raise ConversionError(f"--layer-ids {layer_ids}: choose one of {', '.join(LAYER_ID_CONVENTIONS)}")
    return layer_ids
