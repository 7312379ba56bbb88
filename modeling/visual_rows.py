"""What a drafter does with visual positions: the three ways without weights (like text; raw, as MSD does; none).

Visual handling plans rows and gives their inputs; it knows nothing about layers or drafting.
"""

import torch
from torch import nn

from .row_plan import RowPlan, SlottedBatch, pad_rows, take_rows


class VisualRows(nn.Module):
    """Visual positions are fused like text (EAGLE on a vision-language model). Base of all ways."""

    has_global_feature = False
    compact_positions = False  # whether rows are numbered 0, 1, ... whatever their slots

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


class SkippedRows(VisualRows):
    """Visual positions are cut out before the shift: the drafter reads the conversation as if it had no images, but
    for what the target's features of the text say about them (text-only drafters, e.g. EAGLE-2 as published).

    The first text after an image is joined with the feature of the last text before it. Text that follows an image
    without any text before has no such feature, hence no row.
    """

    compact_positions = True

    def plan(self, batch: SlottedBatch) -> RowPlan:
        is_text = torch.ones(batch.inputs_embeds.shape[:2], dtype=torch.bool, device=batch.inputs_embeds.device)
        for sample, spans in zip(is_text, batch.visual_spans, strict=True):
            for start, stop in spans:
                sample[start:stop] = False
        layouts = [_cut(sample, slots) for sample, slots in zip(is_text, batch.slots, strict=True)]
        plan = RowPlan.of_text([slots for slots, _ in layouts])
        plan.feature_slots = pad_rows([feature_slots for _, feature_slots in layouts])
        return plan


def _cut(is_text: torch.Tensor, slots: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The slots of `(L,)` positions whose next token is text, and for each the last text position up to it."""
    next_is_text = torch.nn.functional.pad(is_text[1:], (0, 1), value=True)[slots]
    last_text = torch.where(is_text[slots], slots, -1).cummax(0).values if len(slots) else slots
    keep = next_is_text & (last_text >= 0)
    if (
        len(slots) and not is_text[slots].any()
    ):  # nothing but an image: the first token of the answer still needs a row
        keep, last_text = slots == slots[-1], slots
    return slots[keep], last_text[keep]
