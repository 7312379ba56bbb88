"""EAGLE-1 and EAGLE-2 (arXiv 2401.15077, 2406.16858): one decoder layer on joined embeddings and features.

Only the fusion and the fixed tree are its own; drafting and training are those of `autoregressive.py`.
"""

from collections.abc import Sequence

import torch
from torch import nn

from .autoregressive import AutoregressiveDrafter, decoder_layer
from .configuration_eagle import EagleConfig
from .draft_tree import DraftBudget, DraftTree
from .fixed_tree import grow_fixed_trees
from .tree_growth import Rows, Step


class EagleDrafter(AutoregressiveDrafter):
    """The EAGLE drafter. Text row: `fc([embedding ; feature])`; no norm before or after the layer, the target's head.

    On a vision-language model visual positions are fused like text, unless `config.visual` says otherwise.
    """

    config_class: type[EagleConfig] = EagleConfig
    config: EagleConfig

    def __init__(self, config: EagleConfig):
        super().__init__(config)
        self.fc = nn.Linear(2 * config.hidden_size, config.hidden_size, bias=config.fc_bias)
        self.post_init()

    def make_layer(self, index: int) -> nn.Module:
        return decoder_layer(self.config, index, input_norm=index > 0 or self.config.input_norm)

    def fuse(
        self, embeddings: torch.Tensor, features: torch.Tensor, image_features: torch.Tensor | None
    ) -> torch.Tensor:
        return self.fc(torch.cat([embeddings, self.see_image(features, image_features)], dim=-1))

    def grow(self, roots: torch.Tensor, first: Rows, step: Step, budgets: Sequence[DraftBudget]) -> list[DraftTree]:
        if self.config.tree_choices is None:
            return super().grow(roots, first, step, budgets)
        return grow_fixed_trees(roots, first, step, self.to_target_ids, budgets, self.config.tree_choices)
