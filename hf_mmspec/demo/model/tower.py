"""The small vision tower: a LeViT of one stage, so 192 x 192 pixels become 144 visual tokens.

Its border: architecture only. Its convolutional stem learns from far fewer images than a patch-embedding ViT, and
its hidden states are token-shaped [B, T, C], as `LlavaForConditionalGeneration` wants them.
"""

import torch
from torch import nn
from transformers import LevitConfig, LevitModel

from ..world.scene import SIZE

PATCH = 16  # pixels of the side that the stem makes one token of
GRID = SIZE // PATCH
VISUAL_TOKENS = GRID * GRID


def tower_config(width: int, depth: int) -> LevitConfig:
    """A one-stage LeViT: `hidden_size` is LLaVA's name for the width, `down_ops` says that no stage follows."""
    return LevitConfig(
        image_size=SIZE,
        hidden_size=width,
        hidden_sizes=[width, width],
        num_attention_heads=[8],
        key_dim=[width // 16],
        depths=[depth],
        mlp_ratio=[2],
        attention_ratio=[2],
        down_ops=[[""]],
    )


def build_tower(config: LevitConfig) -> LevitModel:
    """An untrained tower."""
    return LevitModel(config)


class Projector(nn.Module):
    """Same layout and names as LLaVA's `multi_modal_projector`: [.., vision width] to [.., text width]."""

    def __init__(self, vision_width: int, text_width: int):
        super().__init__()
        self.linear_1 = nn.Linear(vision_width, text_width)
        self.linear_2 = nn.Linear(text_width, text_width)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Projects tower states to the language model's embedding space."""
        return self.linear_2(nn.functional.gelu(self.linear_1(hidden)))
