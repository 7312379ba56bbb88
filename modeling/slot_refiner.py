"""FLASH's refiner: corrects each slot by the tokens that were drafted before it (after Hydra, arXiv 2402.05109).

Knows neither layers nor trees.
"""

import torch
from torch import nn


class SlotRefiner(nn.ModuleList):
    """For every slot i from 1 on, `out + W2 relu(W1 [context ; out])`, where the context is the sum of the embeddings
    of the tokens drafted by slots 0 to i - 1."""

    def __init__(self, hidden_size: int, size: int, num_slots: int, dropout: float):
        super().__init__(
            nn.Sequential(
                nn.Linear(2 * hidden_size, size, bias=False), nn.ReLU(), nn.Linear(size, hidden_size, bias=False)
            )
            for _ in range(num_slots - 1)
        )
        self._dropout = dropout

    def forward(self, slot: int, context: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """Slot `slot`'s output `hidden (..., H)`, refined by `context` (same shape)."""
        delta = self[slot - 1](torch.cat([context, hidden], dim=-1))
        return hidden + nn.functional.dropout(delta, self._dropout, self.training)
