"""EAGLE-3 as published: yuhuili and AngelSlim (`midlayer`), SpecForge (`midlayer`, `eagle_config`), speculators
(`layers.0`, nested config).

Which layers of the target it reads is converted here; the vocabulary map is `draft_vocabulary.py`'s.
"""

from typing import Any

from .checkpoint import Checkpoint
from .decoder_fields import decoder_fields
from .errors import ConversionError
from .layout import EMBEDDINGS, Layout
from .rope import uses_mrope

IDS = "eagle_aux_hidden_state_layer_ids"
LAYER_ID_CONVENTIONS = ("inputs", "outputs")

_MIDLAYER = "midlayer."
_LEFT_OUT = {
    "t2d": "the reverse of d2t, computed from it; checked to agree",
    r"verifier_(norm|lm_head)\.weight": "a copy of the target's, used in training only",
}
# What newer variants add; each changes the numbers.
_UNKNOWN = ("fc_norm", "norm_before_fc", "norm_output", "embed_requires_grad", "parallel_drafting")


def eagle3_layout(checkpoint: Checkpoint, layer_ids: str | None = None) -> Layout:
    """The layout of one checkpoint.

    Args:
        checkpoint: any of the four spellings.
        layer_ids: which convention its layer ids follow, where the usual rule is wrong: see `feature_layers`.

    Raises:
        ConversionError: a variant that no drafter here has, or a config that leaves its numbers open.
    """
    config = checkpoint.config
    is_speculators = "transformer_layer_config" in config
    nested = config.get("eagle_config") or {}
    layer = config["transformer_layer_config"] if is_speculators else config
    fields = decoder_fields(layer, head_dim=True)
    fields |= _target_width(checkpoint, fields["hidden_size"])
    _refuse_variants({**config, **nested}, checkpoint.source, owns_embeddings="target_hidden_size" in fields)
    layers, notes = feature_layers(config.get(IDS) or nested.get(IDS), layer_ids)
    if uses_mrope(fields["rope_parameters"]):
        notes.append(
            "its config names M-RoPE sections; positions here are 1-D, so that drafts after an image may be accepted "
            "less often if the training used 3-D ones (the output stays exact)"
        )
    fields |= {
        "draft_vocab_size": config.get("draft_vocab_size") or fields["vocab_size"],
        "attention_bias": bool(layer.get("attention_bias") or layer.get("qkv_bias")),
        "norm_before_residual": _norm_before_residual(config, is_speculators, checkpoint.source),
        "feature_layers": layers,
        "fc_bias": "fc.bias" in checkpoint.tensors,
        "target_model_type": config.get("target_model_type"),
        "image_token_id": config.get("image_token_id"),
    }
    title = "EAGLE-3 (speculators)" if is_speculators else "EAGLE-3"
    has_midlayer = any(name.startswith(_MIDLAYER) for name in checkpoint.tensors)
    renames = {_MIDLAYER: "layers.0."} if has_midlayer else {}
    return Layout("eagle3", title, fields, renames, _LEFT_OUT, tuple(notes))


def feature_layers(ids: list[int] | None, convention: str | None) -> tuple[list[int] | None, list[str]]:
    """The target's layers whose *inputs* are read (`hidden_states[i]` in transformers), and how that was found.

    Ids are published in two conventions: i is the input of layer i (speculators, vLLM), or its output (SpecForge,
    SGLang). Nobody reads the embeddings' output, so that a first id of 1 means outputs, as SGLang decides it too
    (sgl-project/sglang#25454).

    Args:
        ids: as published; None where the checkpoint leaves it to the authors' rule, 2, n // 2 and n - 3.
        convention: "inputs" or "outputs", where that rule is wrong.
    """
    if ids is None:
        if convention is not None:
            raise ConversionError("the checkpoint names no layer ids, so that there is no convention to choose")
        return None, ["reads the authors' layers, inputs of 2, n // 2 and n - 3 of the target's n"]
    chosen = convention or ("outputs" if ids[:1] == [1] else "inputs")
    layers = [i + 1 for i in ids] if chosen == "outputs" else list(ids)
    if layers != sorted(set(layers)) or not layers or layers[0] < 0:
        raise ConversionError(f"{IDS} is {ids}: layer ids must increase, each once and none below 0")
    how = "as given" if convention else "by their first id"
    return layers, [f"{IDS} {ids} taken as {chosen} of layers ({how}): reads the inputs of layers {layers}"]


def _norm_before_residual(config: dict[str, Any], is_speculators: bool, source: str) -> bool:
    if "norm_before_residual" in config:
        return bool(config["norm_before_residual"])
    if is_speculators:
        raise ConversionError(
            f"{source}: config.json does not say norm_before_residual, and programs differ in what they take it for: "
            "set it to what the training used"
        )
    return False


def _target_width(checkpoint: Checkpoint, hidden_size: int) -> dict[str, int]:
    """The field `target_hidden_size` of a drafter that is not as wide as its target; nothing for others."""
    target_width = checkpoint.config.get("target_hidden_size") or hidden_size
    if target_width == hidden_size:
        return {}
    if EMBEDDINGS not in checkpoint.tensors:
        raise ConversionError(
            f"{checkpoint.source}: hidden size {hidden_size} for a target of {target_width} needs embeddings of its "
            f"own, and {EMBEDDINGS} is missing: the target's do not fit. Get a checkpoint that has it."
        )
    return {"target_hidden_size": target_width}


def _refuse_variants(config: dict[str, Any], source: str, owns_embeddings: bool) -> None:
    known = ("embed_requires_grad",) if owns_embeddings else ()
    found = [name for name in _UNKNOWN if config.get(name) and name not in known]
    if config.get("use_aux_hidden_state") is False:
        found.append("use_aux_hidden_state: false")
    if found:
        raise ConversionError(
            f"{source}: {', '.join(found)} changes EAGLE-3 in a way that no drafter here has: not converted"
        )
