"""ViSpec (arXiv 2509.15235): images compressed to a few rows plus a global feature, in front of an EAGLE-2 layer.

Only the inputs are its own; drafting and training are those of `autoregressive.py`.
"""

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from transformers import initialization as init

from .autoregressive import AutoregressiveDrafter, RowPlan
from .configuration_vispec import ViSpecConfig
from .image_adaptor import CompressedLayout, ImageAdaptor


class ViSpecDrafter(AutoregressiveDrafter):
    """The ViSpec drafter. Text row: `fc([embedding ; img_fc([feature ; global image feature])])`; image: `num_q - 1`
    adapted rows as they are, at the image's last positions (section 3.2)."""

    config_class = ViSpecConfig

    def __init__(self, config: ViSpecConfig):
        super().__init__(config)
        hidden = config.hidden_size
        self.image_adaptor = ImageAdaptor(
            hidden, config.num_attention_heads, config.head_dim, config.num_q, config.attention_bias
        )
        self.img_fc = nn.Linear(2 * hidden, hidden)
        self.fc = nn.Linear(2 * hidden, hidden, bias=config.fc_bias)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, ImageAdaptor):
            init.normal_(module.queries, std=self.config.head_dim**-0.5)
        elif module is getattr(self, "img_fc", None):
            # starts by passing the text feature through and ignoring the image
            init.copy_(module.weight, torch.eye(*module.weight.shape))

    def fuse(
        self, embeddings: torch.Tensor, features: torch.Tensor, image_features: torch.Tensor | None
    ) -> torch.Tensor:
        """Text rows `(B, R, H)`; `image_features` is `(B, R or 1, H)`, None for no image at all (as zeros)."""
        if image_features is None:
            image_features = features.new_zeros(1, 1, features.shape[-1])
        mixed = self.img_fc(torch.cat([features, image_features.expand_as(features)], dim=-1))
        return self.fc(torch.cat([embeddings, mixed], dim=-1))

    def plan_rows(
        self, inputs_embeds: torch.Tensor, slots: list[torch.Tensor], visual_spans: list[list[tuple[int, int]]]
    ) -> RowPlan:
        layouts = [
            CompressedLayout.build(sample, spans, self.config.num_q - 1)
            for sample, spans in zip(slots, visual_spans, strict=True)
        ]
        row_slots = pad_sequence([layout.slots for layout in layouts], batch_first=True)
        queries = pad_sequence([layout.queries for layout in layouts], batch_first=True, padding_value=-1)
        valid = pad_sequence([torch.ones_like(layout.slots, dtype=torch.bool) for layout in layouts], batch_first=True)
        plan = RowPlan(row_slots, valid, queries >= 0)
        if any(visual_spans):
            images = pad_sequence([layout.images for layout in layouts], batch_first=True)
            self._add_images(
                plan, self.image_adaptor.compress(inputs_embeds, visual_spans), visual_spans, images, queries
            )
        return plan

    @staticmethod
    def _add_images(plan: RowPlan, compressed: torch.Tensor, visual_spans, images, queries) -> None:
        """Fill in adapted rows and global features. `compressed (total images, num_q, H)` runs over the whole batch,
        so each sample's images start where those of the samples before it end."""
        counts = torch.tensor([len(spans) for spans in visual_spans], device=images.device)
        offsets = (counts.cumsum(0) - counts)[:, None]
        with_none = torch.cat([torch.zeros_like(compressed[:1]), compressed])  # index 0: no image yet
        own = torch.where(plan.visual, offsets + images + 1, 0)
        plan.visual_inputs = with_none[own, queries]
        plan.image_features = with_none[torch.where(images > 0, offsets + images, 0), -1]
        plan.last_image_feature = with_none[torch.where(counts > 0, offsets[:, 0] + counts, 0), -1][:, None]
