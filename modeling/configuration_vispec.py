"""Configuration of the ViSpec drafter (arXiv 2509.15235)."""

from huggingface_hub.dataclasses import strict

from .configuration_autoregressive import AutoregressiveConfig


@strict
class ViSpecConfig(AutoregressiveConfig):
    """`AutoregressiveConfig` plus what ViSpec adds.

    Args:
        num_q: learned queries of the image adaptor, at least 1: `num_q - 1` rows stand for the image in the
            drafter's sequence, the last one is the global feature. Published drafters use 2.
        global_feature: see `VisualConfig`; all published drafters have one.
        fc_bias: whether the layer that joins embedding and feature has a bias.

    Raises:
        ValueError: `num_q` is below 1 (and see `DrafterConfig`).
    """

    model_type = "vispec"

    visual: str = "adaptor"
    fc_bias: bool = True
