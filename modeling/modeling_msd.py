"""MSD (arXiv 2505.14260): an EAGLE drafter whose visual rows are the projected image embeddings as they are.

Text/visual decoupling is in `visual_rows.py`, everything else in `modeling_eagle.py`.
"""

from typing import Any

import torch

from .binding import unwrap
from .configuration_msd import MSDConfig
from .modeling_eagle import EagleDrafter


class MSDDrafter(EagleDrafter):
    """The MSD drafter: no weight more than EAGLE's, and Qwen2's style of layer for Qwen targets."""

    config_class = MSDConfig

    @classmethod
    def from_target(cls, target: Any, draft_token_ids: torch.Tensor | None = None, **overrides):
        """As `Drafter.from_target`, with the layer style that MSD uses for this family of targets."""
        style = MSDConfig.layer_style(unwrap(target).config.model_type)
        return super().from_target(target, draft_token_ids, **{**style, **overrides})
