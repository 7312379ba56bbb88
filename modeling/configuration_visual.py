"""Configuration of a drafter's visual handling, which any family can choose.

Knows neither layers nor drafting.
"""

from huggingface_hub.dataclasses import strict

from .configuration_drafter import DrafterConfig

VISUAL_CHOICES = ("none", "raw", "adaptor", "latents", "skipped")


@strict
class VisualConfig(DrafterConfig):
    """`DrafterConfig` plus the handling of images.

    Args:
        visual: `"none"`: visual positions are fused like text. `"raw"`: their embeddings enter the layer as they are
            (MSD). `"adaptor"`: `num_q - 1` adapted rows for each image and a global feature (ViSpec). `"latents"`:
            `num_latents` pooled features for each image (FLASH). `"skipped"`: visual positions have no rows at all
            (a text-only drafter).
        num_q: learned queries of the adaptor, at least 1; the last one is the global feature.
        global_feature: whether the adaptor has one, which all later text reads. Without it all `num_q` adapted rows
            stand for the image.
        num_latents: learned queries of the latent pool, at least 1.

    Raises:
        StrictDataclassError: an unknown choice, or a count below 1 (and see `DrafterConfig`).
    """

    visual: str = "none"
    num_q: int = 2
    global_feature: bool = True
    num_latents: int = 64

    def validate_architecture(self) -> None:
        super().validate_architecture()
        if self.visual not in VISUAL_CHOICES:
            raise ValueError(f"visual must be one of {', '.join(VISUAL_CHOICES)}, got {self.visual!r}")
        for name in ("num_q", "num_latents"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
