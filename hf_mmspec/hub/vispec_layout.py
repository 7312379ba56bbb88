"""ViSpec as published (arXiv 2509.15235): EAGLE's names plus `imadpt.*` and `img_fc.*`."""

from .checkpoint import Checkpoint
from .decoder_fields import decoder_fields
from .layout import Layout

RENAMES = {"imadpt.q": "image_adaptor.queries", "imadpt.": "image_adaptor."}


def vispec_layout(checkpoint: Checkpoint) -> Layout:
    """The authors give the number of queries to their program, not to their config: the weights know it."""
    config, queries = checkpoint.config, checkpoint.tensors.get("imadpt.q")
    fields = {
        **decoder_fields(config),
        "num_q": queries.shape[0] if queries else 2,
        "fc_bias": config.get("bias", True),
        "attention_bias": config.get("qkv_bias", False),
    }
    return Layout("vispec", "ViSpec", fields, RENAMES)
