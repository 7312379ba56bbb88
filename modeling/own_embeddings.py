"""Embeddings and head of a drafter that is not as wide as its target: how they start from the target's.

Knows nothing about drafting, configs or training.
"""

from collections.abc import Callable

import torch
from torch import nn

from .binding import input_device

_ROWS_AT_ONCE = 8192  # in float32, so that a table of bfloat16 is never held twice


class OwnEmbeddings(nn.Embedding):
    """A drafter's own table of embeddings, trained with it (`requires_grad_(False)` freezes it).

    Ids beyond it, such as an image placeholder that was added to the target's vocabulary later, read its last row, as
    in SGLang; padding may be any number.
    """

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return super().forward(ids.to(self.weight.device).clamp(0, self.num_embeddings - 1))

    @torch.no_grad()
    def start_from(self, embeddings: nn.Module) -> None:
        """Start from the target's `embeddings`, brought to this width; rows that they do not have stay as they are."""
        weight = next(embeddings.parameters())
        ids = torch.arange(min(self.num_embeddings, getattr(embeddings, "num_embeddings", self.num_embeddings)))
        rows = at_width(embeddings, ids.to(input_device(weight)), self.embedding_dim)
        self.weight[: len(ids)] = rows.to(self.weight)


@torch.no_grad()
def at_width(read: Callable[[torch.Tensor], torch.Tensor], ids: torch.Tensor, width: int) -> torch.Tensor:
    """Rows of a target's table at a drafter's width, `(len(ids), width)`: as they are where it is theirs; else in
    float32, on their first principal axes, which keep inner products best, or with zeros added.

    Args:
        read: ids -> rows `(n, H)` of the table.
        ids: `int64`, the wanted rows.
        width: of the result.
    """
    if read(ids[:1]).shape[1] == width:
        return read(ids)
    pieces = ids.split(_ROWS_AT_ONCE)
    products = torch.zeros((), device=ids.device)
    for piece in pieces:
        rows = read(piece).float()
        products = products.to(rows.device) + rows.T @ rows
    axes = torch.linalg.eigh(products).eigenvectors.flip(-1)[:, :width]  # by eigenvalue, largest first
    rows = torch.cat([read(piece).float() @ axes for piece in pieces])
    return nn.functional.pad(rows, (0, width - rows.shape[1]))
