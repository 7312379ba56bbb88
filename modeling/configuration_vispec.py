"""Configuration of the ViSpec drafter (arXiv 2509.15235)."""

from huggingface_hub.dataclasses import strict

from .configuration_drafter import DrafterConfig


@strict
class ViSpecConfig(DrafterConfig):
    """`DrafterConfig` plus what ViSpec adds.

    Args:
        num_q: learned queries of the image adaptor, at least 1: `num_q - 1` rows stand for the image in the
            drafter's sequence, the last one is the global feature. Published drafters use 2.
        fc_bias: whether the layer that joins embedding and feature has a bias.

    Raises:
        ValueError: `num_q` is below 1 (and see `DrafterConfig`).
    """

    model_type = "vispec"

    num_q: int = 2
    fc_bias: bool = True

    def validate_architecture(self) -> None:
        super().validate_architecture()
        if self.num_q < 1:
            raise ValueError(f"num_q must be at least 1, got {self.num_q}")
