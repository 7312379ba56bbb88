"""FLASH's compressor of images: learned queries that average an image's own target features.

Knows nothing about drafting; any family may put it in front of its layers.
"""

import torch
from torch import nn

from .compressed_rows import CompressedRows
from .row_plan import RowPlan, SlottedBatch, take_rows


class LatentPool(CompressedRows):
    """`num_latents` learned queries over the raw features of one image or frame (FLASH, arXiv 2505.12728): softmax of
    unscaled products, features as keys and as values, no projection. The queries are its only weights.

    Args:
        hidden_size: width of the features.
        num_latents: rows that stand for an image.
        released_rows: lay out rows as the released code does: an image takes the slots of its own features, and
            text before the first image enters as raw features, not fused with embeddings.
    """

    reads_features = True

    def __init__(self, hidden_size: int, num_latents: int, released_rows: bool = False):
        super().__init__()
        self.rows_per_image = num_latents
        self.released_rows = released_rows
        self.slot_shift = 0 if released_rows else 1
        self.queries = nn.Parameter(torch.empty(num_latents, hidden_size))

    def forward(self, features: torch.Tensor, key_mask: torch.Tensor | None = None) -> torch.Tensor:
        """Compress images `(n, tokens, H)`, `key_mask` False at padding, to `(n, num_latents, H)`."""
        queries = self.queries.expand(features.shape[0], -1, -1)
        mask = None if key_mask is None else key_mask[:, None, :]
        return nn.functional.scaled_dot_product_attention(queries, features, features, attn_mask=mask, scale=1.0)

    def plan(self, batch: SlottedBatch) -> RowPlan:
        plan = super().plan(batch)
        if self.released_rows and plan.visual_inputs is not None and not batch.follows_images:
            first = [spans[0][0] if spans else 0 for spans in batch.visual_spans]
            before = plan.valid & (plan.slots < torch.tensor(first, device=plan.slots.device)[:, None])
            plan.visual_inputs = torch.where(
                before[..., None], take_rows(batch.features, plan.slots), plan.visual_inputs
            )
            plan.visual = plan.visual | before
        return plan
