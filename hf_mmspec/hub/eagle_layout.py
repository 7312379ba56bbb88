"""EAGLE-1/2 and MSD as published: one set of names; MSD's for Qwen2-VL has an input norm and biases.

Which of the two a checkpoint is, `recognise.py` decides.
"""

from .checkpoint import Checkpoint
from .decoder_fields import decoder_fields
from .errors import ConversionError
from .layout import Layout

# the `speculators` package's spelling of EAGLE-1
_SPECULATORS_RENAMES = {"fusion_fc.": "fc.", "transformer.": "layers.0."}
_MSD_TARGETS = {"llava": "MSD for LLaVA-1.5", "qwen2_vl": "MSD for Qwen2-VL"}


def eagle_layout(checkpoint: Checkpoint) -> Layout:
    """EAGLE-1 and EAGLE-2 have the same weights; the tree is ours to choose."""
    config = checkpoint.config
    if "transformer_layer_config" in config:
        return _speculators_layout(checkpoint)
    fields = {
        **decoder_fields(config),
        "fc_bias": config.get("bias", True),
        "attention_bias": config.get("qkv_bias", False),
    }
    return Layout("eagle", "EAGLE-1/2", fields)


def msd_layout(checkpoint: Checkpoint) -> Layout:
    """The authors' code knows two values of `model_type`, and with each a layer.

    Raises:
        ConversionError: another `model_type`.
    """
    config = checkpoint.config
    target = config.get("model_type")
    if target not in _MSD_TARGETS:
        raise ConversionError(
            f'{checkpoint.source}: model_type "{target}" is none that MSD\'s code knows (llava, qwen2_vl): set the '
            "one of the target in config.json if this is an MSD drafter"
        )
    is_qwen = target == "qwen2_vl"
    fields = {
        **decoder_fields(config),
        "fc_bias": config.get("bias", True),
        "attention_bias": is_qwen or config.get("qkv_bias", False),
        "input_norm": is_qwen,
        "target_model_type": target,
    }
    notes: tuple[str, ...] = ()
    if not is_qwen:
        # The authors' LLaVA has no padding; the one on the Hub has 64 more rows in its embeddings.
        fields["real_vocab_size"] = fields["vocab_size"]
        notes = (f"targets with more than {fields['vocab_size']} tokens are taken to differ in padding only",)
    return Layout("msd", _MSD_TARGETS[target], fields, notes=notes)


def _speculators_layout(checkpoint: Checkpoint) -> Layout:
    config = checkpoint.config
    if config.get("layernorms"):
        raise ConversionError(
            f"{checkpoint.source}: its extra norms (layernorms: true, as in HASS) are none of EAGLE's and no drafter "
            "here has them: not converted"
        )
    layer = config["transformer_layer_config"]
    fields = {**decoder_fields(layer, head_dim=True), "fc_bias": config.get("fusion_bias", False)}
    fields["attention_bias"] = layer.get("attention_bias", False)
    return Layout("eagle", "EAGLE-1/2 (speculators)", fields, _SPECULATORS_RENAMES)
