"""ViSpec (arXiv 2509.15235): images compressed to a few rows plus a global feature, in front of an EAGLE-2 layer.

Only the fusion is its own; the adaptor is in `image_adaptor.py`, drafting and training in `autoregressive.py`.
"""

import torch
from torch import nn

from .autoregressive import AutoregressiveDrafter
from .configuration_vispec import ViSpecConfig


class ViSpecDrafter(AutoregressiveDrafter):
    """The ViSpec drafter. Text row: `fc([embedding ; img_fc([feature ; global image feature])])`; image: `num_q - 1`
    adapted rows as they are, at the image's last positions (section 3.2)."""

    config_class = ViSpecConfig

    def __init__(self, config: ViSpecConfig):
        super().__init__(config)
        self.fc = nn.Linear(2 * config.hidden_size, config.hidden_size, bias=config.fc_bias)
        self.post_init()

    def fuse(
        self, embeddings: torch.Tensor, features: torch.Tensor, image_features: torch.Tensor | None
    ) -> torch.Tensor:
        """Text rows `(B, R, H)`; `image_features` is `(B, R or 1, H)`, None for no image at all (as zeros)."""
        return self.fc(torch.cat([embeddings, self.see_image(features, image_features)], dim=-1))
