"""How a batch's slots become rows of a drafter's sequence: the plan that visual handling makes and drafting follows.

Holds indices and given inputs only; knows neither layers nor how images shrink.
"""

from dataclasses import dataclass

import torch
from torch.nn.utils.rnn import pad_sequence

Spans = list[tuple[int, int]]


@dataclass(frozen=True)
class SlottedBatch:
    """A batch before it becomes rows: what visual handling plans from.

    Args:
        inputs_embeds: `(B, L, H)` unshifted merged embeddings.
        features: `(B, L, H)` target features, projected to the drafter's width.
        slots: each sample's real slots, `int64`, increasing, padding left out.
        visual_spans: each sample's half-open image spans, by unshifted position.
        image_feature: `(1, 1, H)`, the global feature in force before the first slot where earlier turns of a
            conversation had images, or None.
        follows_images: whether earlier turns had any.
    """

    inputs_embeds: torch.Tensor
    features: torch.Tensor
    slots: list[torch.Tensor]
    visual_spans: list[Spans]
    image_feature: torch.Tensor | None = None
    follows_images: bool = False


@dataclass
class RowPlan:
    """Rows of a batch, decided by a family's visual handling.

    Slot j pairs the feature of position j with the embedding of position j + 1 (the EAGLE shift).

    Args:
        slots: `int64 (B, R)`, slot of each row, right-padded with 0.
        valid: `bool (B, R)`, False at padding.
        visual: `bool (B, R)`, rows whose input is given by `visual_inputs` instead of being fused.
        visual_inputs: `(B, R, H)`, or None without images.
        image_features: `(B, R, H)` global image feature that each row sees, or None for families without one.
        last_image_feature: `(B, 1, H)`, the one in force after the last row, or None.
        feature_slots: `int64 (B, R)`, slot whose feature each row reads, where that is not its own.
    """

    slots: torch.Tensor
    valid: torch.Tensor
    visual: torch.Tensor
    visual_inputs: torch.Tensor | None = None
    image_features: torch.Tensor | None = None
    last_image_feature: torch.Tensor | None = None
    feature_slots: torch.Tensor | None = None

    def from_row(self, first: int) -> "RowPlan":
        """The same without the rows before `first`."""

        def cut(rows: torch.Tensor | None) -> torch.Tensor | None:
            return None if rows is None else rows[:, first:]

        return RowPlan(
            self.slots[:, first:],
            self.valid[:, first:],
            self.visual[:, first:],
            cut(self.visual_inputs),
            cut(self.image_features),
            self.last_image_feature,
            cut(self.feature_slots),
        )

    def features_of_rows(self, features: torch.Tensor) -> torch.Tensor:
        """`(B, L, H)` features by position to `(B, R, H)` by row."""
        return take_rows(features, self.slots if self.feature_slots is None else self.feature_slots)

    def first_row_from(self, slots: torch.Tensor) -> int:
        """The first row that is needed for slots from `slots[b]` on, in any sample b."""
        return int(((self.slots < slots[:, None]) & self.valid).sum(1).min())

    @classmethod
    def of_text(cls, slots: list[torch.Tensor]) -> "RowPlan":
        """One text row for each slot; `slots` holds each sample's, `int64`, increasing."""
        rows = pad_rows(slots)
        valid = pad_rows([torch.ones_like(sample, dtype=torch.bool) for sample in slots])
        return cls(rows, valid, torch.zeros_like(valid))


def pad_rows(samples: list[torch.Tensor], value: float = 0) -> torch.Tensor:
    """`(B, longest, ...)`, right-padded with `value`."""
    return pad_sequence(samples, batch_first=True, padding_value=value)


def take_rows(values: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
    """`(B, L, H)` at `(B, R)` slots."""
    return values.gather(1, slots[..., None].expand(-1, -1, values.shape[-1]))


def put_rows(hidden: torch.Tensor, plan: RowPlan, length: int, text_only: bool = False) -> torch.Tensor:
    """Rows `(B, R, ...)` back to `(B, length, ...)`, zero where a slot has no row."""
    wanted = plan.valid & ~plan.visual if text_only else plan.valid
    batch, rows = wanted.nonzero(as_tuple=True)
    out = hidden.new_zeros(hidden.shape[0], length, *hidden.shape[2:])
    return out.index_put((batch, plan.slots[batch, rows]), hidden[batch, rows])
