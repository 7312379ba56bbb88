"""What a drafter does with visual positions: the two ways without weights (like text; raw, as MSD does).

Visual handling plans rows and gives their inputs; it knows nothing about layers or drafting.
"""

import torch
from torch import nn

from .row_plan import RowPlan, Spans, take_rows


class VisualRows(nn.Module):
    """Visual positions are fused like text (EAGLE on a vision-language model). Base of all ways."""

    has_global_feature = False

    def plan(
        self,
        inputs_embeds: torch.Tensor,
        features: torch.Tensor,
        slots: list[torch.Tensor],
        visual_spans: list[Spans],
    ) -> RowPlan:
        """Lay out a batch.

        Args:
            inputs_embeds: `(B, L, H)` unshifted merged embeddings.
            features: `(B, L, H)` target features, projected to the drafter's width.
            slots: each sample's real slots, `int64`, increasing, padding left out.
            visual_spans: each sample's half-open image spans, by unshifted position.
        """
        return RowPlan.of_text(slots)


class RawRows(VisualRows):
    """A visual token's projected embedding enters the layer as it is, its feature unused (MSD, arXiv 2505.14260,
    "text/visual decoupling"). Slots count as visual by their embedding, so the mask is shifted with the embeddings."""

    def plan(
        self,
        inputs_embeds: torch.Tensor,
        features: torch.Tensor,
        slots: list[torch.Tensor],
        visual_spans: list[Spans],
    ) -> RowPlan:
        plan = RowPlan.of_text(slots)
        if any(visual_spans):
            is_visual = torch.zeros(inputs_embeds.shape[:2], dtype=torch.bool, device=inputs_embeds.device)
            for sample, spans in zip(is_visual, visual_spans, strict=True):
                for start, stop in spans:
                    sample[max(start - 1, 0) : stop - 1] = True
            plan.visual = plan.valid & is_visual.gather(1, plan.slots)
            plan.visual_inputs = take_rows(inputs_embeds.roll(-1, dims=1), plan.slots)
        return plan
