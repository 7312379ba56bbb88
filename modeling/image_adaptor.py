"""ViSpec's handling of images: a learned-query adaptor, and where its rows go in the drafter's sequence.

Knows nothing about drafting; any family may put it in front of its layers.
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

Spans = list[tuple[int, int]]


class ImageAdaptor(nn.Module):
    """Cross-attention of `num_q` learned queries over an image's projected embeddings (ViSpec, section 3.2).

    All heads are full heads: no grouped keys, no positions, no norm.
    """

    def __init__(self, hidden_size: int, num_heads: int, head_dim: int, num_q: int, bias: bool = False):
        super().__init__()
        self.queries = nn.Parameter(torch.empty(num_q, num_heads, head_dim))
        self.k_proj = nn.Linear(hidden_size, num_heads * head_dim, bias=bias)
        self.v_proj = nn.Linear(hidden_size, num_heads * head_dim, bias=bias)
        self.o_proj = nn.Linear(num_heads * head_dim, hidden_size, bias=False)

    def forward(self, embeddings: torch.Tensor, key_mask: torch.Tensor | None = None) -> torch.Tensor:
        """Compress images.

        Args:
            embeddings: `(images, tokens, H)`.
            key_mask: `bool (images, tokens)`, False at padding.

        Returns:
            `(images, num_q, H)`; the last row is the image's global feature.
        """
        images, tokens, _ = embeddings.shape
        num_q, heads, head_dim = self.queries.shape
        keys = self.k_proj(embeddings).view(images, tokens, heads, head_dim).transpose(1, 2)
        values = self.v_proj(embeddings).view(images, tokens, heads, head_dim).transpose(1, 2)
        queries = self.queries.transpose(0, 1).expand(images, -1, -1, -1)
        mask = None if key_mask is None else key_mask[:, None, None, :]
        mixed = nn.functional.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
        return self.o_proj(mixed.transpose(1, 2).reshape(images, num_q, heads * head_dim))

    def compress(self, embeddings: torch.Tensor, spans: list[Spans]) -> torch.Tensor:
        """All images of a batch at once: `(B, L, H)` unshifted embeddings and each sample's spans, whatever their
        lengths, to `(total images, num_q, H)` in order of sample, then image."""
        pieces = [row[start:stop] for row, images in zip(embeddings, spans, strict=True) for start, stop in images]
        if len({len(piece) for piece in pieces}) == 1:
            return self(torch.stack(pieces))
        mask = pad_sequence([torch.ones_like(piece[:, 0], dtype=torch.bool) for piece in pieces], batch_first=True)
        return self(pad_sequence(pieces, batch_first=True), mask)


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
    def build(cls, slots: torch.Tensor, spans: Spans, rows_per_image: int) -> "CompressedLayout":
        """Lay out one sample from its real slots (`int64`, increasing, padding left out) and its unshifted spans."""
        never = torch.iinfo(torch.long).max
        starts = torch.tensor([start - 1 for start, _ in spans] + [never], device=slots.device)
        stops = torch.tensor([stop - 1 for _, stop in spans] + [never], device=slots.device)
        images = torch.searchsorted(stops, slots, right=True)
        visual = slots >= starts[images]
        queries = torch.where(visual, slots - stops[images] + rows_per_image, -1)
        keep = ~visual | (queries >= 0)
        return cls(slots[keep], images[keep], queries[keep])
