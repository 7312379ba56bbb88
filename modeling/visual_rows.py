"""What a drafter does with visual positions: the two ways without weights (like text; raw, as MSD does).

Visual handling plans rows and gives their inputs; it knows nothing about layers or drafting.
"""

import torch
from torch import nn

from .row_plan import RowPlan, SlottedBatch, take_rows


class VisualRows(nn.Module):
    """Visual positions are fused like text (EAGLE on a vision-language model). Base of all ways."""

    has_global_feature = False

    def plan(self, batch: SlottedBatch) -> RowPlan:
        """Lay out a batch."""
        return RowPlan.of_text(batch.slots)


class RawRows(VisualRows):
    """A visual token's projected embedding enters the layer as it is, its feature unused (MSD, arXiv 2505.14260,
    "text/visual decoupling"). Slots count as visual by their embedding, so the mask is shifted with the embeddings."""

    def plan(self, batch: SlottedBatch) -> RowPlan:
        plan, embeds = RowPlan.of_text(batch.slots), batch.inputs_embeds
        if any(batch.visual_spans):
            is_visual = torch.zeros(embeds.shape[:2], dtype=torch.bool, device=embeds.device)
            for sample, spans in zip(is_visual, batch.visual_spans, strict=True):
                for start, stop in spans:
                    sample[max(start - 1, 0) : stop - 1] = True
            plan.visual = plan.valid & is_visual.gather(1, plan.slots)
            plan.visual_inputs = take_rows(embeds.roll(-1, dims=1), plan.slots)
        return plan
