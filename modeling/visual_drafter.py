"""A drafter with a visual part: which one its config chooses, and how text rows see an image's global feature.

Base of the autoregressive and the k-slot drafters; knows neither layers nor trees.
"""

import torch
from torch import nn
from transformers import initialization as init

from .configuration_visual import VisualConfig
from .image_adaptor import ImageAdaptor
from .latent_pool import LatentPool
from .modeling_drafter import Drafter
from .row_plan import RowPlan, SlottedBatch
from .visual_rows import RawRows, SkippedRows, VisualRows


def build_visual_rows(config: VisualConfig) -> VisualRows:
    """The visual handling that `config.visual` names."""
    if config.visual == "adaptor":
        heads, head_dim = config.num_attention_heads, config.head_dim
        options = (config.num_q, config.attention_bias, config.global_feature)
        return ImageAdaptor(config.hidden_size, heads, head_dim, *options)
    if config.visual == "latents":
        return LatentPool(config.hidden_size, config.num_latents, getattr(config, "released_rows", False))
    return {"none": VisualRows, "raw": RawRows, "skipped": SkippedRows}[config.visual]()


class VisualDrafter(Drafter):
    """Adds `image_adaptor` (the visual handling, whatever it is) and, where that has a global feature, `img_fc`."""

    def add_visual_part(self, config: VisualConfig) -> None:
        """Called by `__init__`, once."""
        self.image_adaptor = build_visual_rows(config)
        self.img_fc: nn.Linear | None = None
        if self.image_adaptor.has_global_feature:
            self.img_fc = nn.Linear(2 * config.hidden_size, config.hidden_size)

    def plan_rows(self, batch: SlottedBatch) -> RowPlan:
        """Lay out a batch, see `VisualRows.plan`."""
        return self.image_adaptor.plan(batch)

    def see_image(self, features: torch.Tensor, image_features: torch.Tensor | None) -> torch.Tensor:
        """Mix the global feature into text rows' features (ViSpec): `img_fc([feature ; global])`, both `(B, R, H)`.
        `image_features` may be `(B, 1, H)`, or None for no image at all (as zeros)."""
        if self.img_fc is None:
            return features
        if image_features is None:
            image_features = features.new_zeros(1, 1, features.shape[-1])
        return self.img_fc(torch.cat([features, image_features.expand_as(features)], dim=-1))

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, ImageAdaptor):
            init.normal_(module.queries, std=self.config.head_dim**-0.5)
        elif isinstance(module, LatentPool):
            # features are large, so that small queries start as nearly even averages
            init.normal_(module.queries, std=self.config.initializer_range)
        elif module is getattr(self, "img_fc", None):
            # starts by passing the text feature through and ignoring the image
            init.copy_(module.weight, torch.eye(*module.weight.shape))
