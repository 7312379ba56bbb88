"""Configuration of the MSD drafter (arXiv 2505.14260)."""

from typing import Any

from huggingface_hub.dataclasses import strict

from .configuration_eagle import EagleConfig


@strict
class MSDConfig(EagleConfig):
    """`EagleConfig` with raw visual rows.

    The published drafters have two kinds of layer: that for LLaVA is EAGLE's; that for Qwen2-VL has
    `input_norm=True` and `attention_bias=True`.
    """

    model_type = "msd"

    visual: str = "raw"

    @classmethod
    def layer_style(cls, target_model_type: str | None) -> dict[str, Any]:
        """The fields in which MSD's layer differs for a family of targets."""
        return {"input_norm": True, "attention_bias": True} if (target_model_type or "").startswith("qwen") else {}
