"""Images that shrink to a few rows: where those rows go, for any compressor.

Knows nothing about how an image is compressed (`image_adaptor.py`, `latent_pool.py`) nor about drafting.
"""

from dataclasses import dataclass

import torch

from .row_plan import RowPlan, SlottedBatch, Spans, pad_rows
from .visual_rows import VisualRows


@dataclass(frozen=True)
class CompressedLayout:
    """Which slots of one sample remain when each image shrinks to a few rows. R rows, in order, all `int64 (R,)`.

    Slot j is the EAGLE-shifted position j: the feature of position j with the embedding of position j + 1. So an image
    on positions `[start, stop)` fills slots `[start - 1, stop - 1)`, and its rows take the last of them.

    Args:
        slots: slot of each row.
        images: number of images that are complete before the row, so text sees the global feature of image
            `images - 1` (none at 0) and a visual row belongs to image `images`.
        queries: query that a visual row comes from, -1 for text rows.
    """

    slots: torch.Tensor
    images: torch.Tensor
    queries: torch.Tensor

    @classmethod
    def build(cls, slots: torch.Tensor, spans: Spans, rows_per_image: int, shift: int = 1) -> "CompressedLayout":
        """Lay out one sample from its real slots (`int64`, increasing, padding left out) and its unshifted spans.
        With `shift=0` an image fills slots `[start, stop)`."""
        never = torch.iinfo(torch.long).max
        starts = torch.tensor([start - shift for start, _ in spans] + [never], device=slots.device)
        stops = torch.tensor([stop - shift for _, stop in spans] + [never], device=slots.device)
        images = torch.searchsorted(stops, slots, right=True)
        visual = slots >= starts[images]
        queries = torch.where(visual, slots - stops[images] + rows_per_image, -1)
        keep = ~visual | (queries >= 0)
        return cls(slots[keep], images[keep], queries[keep])


class CompressedRows(VisualRows):
    """Base of compressors: `forward(images (n, tokens, H), key_mask) -> (n, Q, H)`.

    Attributes:
        rows_per_image: the first so many of the Q results become rows.
        has_global_feature: whether the last result is a feature that all later rows see.
        reads_features: whether target features are compressed, instead of embeddings.
        slot_shift: see `CompressedLayout.build`.
    """

    rows_per_image: int
    reads_features = False
    slot_shift = 1

    def plan(self, batch: SlottedBatch) -> RowPlan:
        layouts = [
            CompressedLayout.build(sample, spans, self.rows_per_image, self.slot_shift)
            for sample, spans in zip(batch.slots, batch.visual_spans, strict=True)
        ]
        plan = RowPlan.of_text([layout.slots for layout in layouts])
        queries = pad_rows([layout.queries for layout in layouts], value=-1)
        plan.visual = queries >= 0
        plan.image_features = plan.last_image_feature = batch.image_feature
        if any(batch.visual_spans):
            images = pad_rows([layout.images for layout in layouts])
            values = batch.features if self.reads_features else batch.inputs_embeds
            compressed = self.compress(values, batch.visual_spans)
            self._add_images(plan, compressed, batch, images, queries)
        return plan

    def compress(self, values: torch.Tensor, spans: list[Spans]) -> torch.Tensor:
        """All images of a batch at once: `(B, L, H)` unshifted values and each sample's spans, whatever their lengths,
        to `(total images, Q, H)` in order of sample, then image."""
        pieces = [row[start:stop] for row, images in zip(values, spans, strict=True) for start, stop in images]
        lengths = [len(piece) for piece in pieces]
        if len(set(lengths)) == 1:
            return self(torch.stack(pieces))
        if max(lengths) * len(lengths) > 2 * sum(lengths):
            return self._by_length(pieces)
        mask = pad_rows([torch.ones_like(piece[:, 0], dtype=torch.bool) for piece in pieces])
        return self(pad_rows(pieces), mask)

    def _by_length(self, pieces: list[torch.Tensor]) -> torch.Tensor:
        """The same without padding: one large picture beside hundreds of frames must not make each of them as long."""
        members: dict[int, list[int]] = {}
        for index, piece in enumerate(pieces):
            members.setdefault(len(piece), []).append(index)
        order = torch.tensor([index for group in members.values() for index in group])
        compressed = torch.cat([self(torch.stack([pieces[index] for index in group])) for group in members.values()])
        return compressed[order.argsort().to(compressed.device)]

    def _add_images(self, plan: RowPlan, compressed: torch.Tensor, batch: SlottedBatch, images, queries) -> None:
        """Fill in compressed rows and global features. `compressed (total images, Q, H)` runs over the whole batch,
        so each sample's images start where those of the samples before it end."""
        counts = torch.tensor([len(spans) for spans in batch.visual_spans], device=images.device)
        offsets = (counts.cumsum(0) - counts)[:, None]
        none = torch.zeros_like(compressed[:1])
        if batch.image_feature is not None:
            none[:, -1] = batch.image_feature[:, 0]
        with_none = torch.cat([none, compressed])  # index 0: no image yet, or that of an earlier turn
        own = torch.where(plan.visual, offsets + images + 1, 0)
        plan.visual_inputs = with_none[own, queries]
        if self.has_global_feature:
            plan.image_features = with_none[torch.where(images > 0, offsets + images, 0), -1]
            plan.last_image_feature = with_none[torch.where(counts > 0, offsets[:, 0] + counts, 0), -1][:, None]
