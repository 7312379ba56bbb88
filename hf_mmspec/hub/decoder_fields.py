"""Config fields that all authors spell alike: the sizes of the decoder layer.

Families add their own in `*_layout.py`.
"""

from typing import Any

from .errors import ConversionError
from .rope import rope_parameters

_REQUIRED = ("vocab_size", "hidden_size", "intermediate_size", "num_attention_heads")
# field -> what the authors' config class takes where it is missing
_DEFAULTS = {
    "num_key_value_heads": 0,
    "num_hidden_layers": 1,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 2048,
    "attention_dropout": 0.0,
    "mlp_bias": False,
}


def decoder_fields(config: dict[str, Any], head_dim: bool = False) -> dict[str, Any]:
    """Fields of a `DrafterConfig` from an authors' config.

    Args:
        config: config.json, or the part of it that describes the layer.
        head_dim: whether this family's code reads `head_dim`; the others use hidden size over heads whatever it says.

    Raises:
        ConversionError: a size is missing, or the layer does something that no drafter here does.
    """
    missing = [name for name in _REQUIRED if config.get(name) is None]
    if missing:
        raise ConversionError(f"config.json does not say {', '.join(missing)}: get the complete one from the authors")
    if config.get("use_sliding_window"):
        raise ConversionError("use_sliding_window: drafters here attend to everything, so this one is not converted")
    fields = {name: config[name] for name in _REQUIRED}
    fields |= {name: value if config.get(name) is None else config[name] for name, value in _DEFAULTS.items()}
    if head_dim and config.get("head_dim"):
        fields["head_dim"] = config["head_dim"]
    return {**fields, "rope_parameters": rope_parameters(config)}
