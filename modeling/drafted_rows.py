"""Which scratch row of a drafter's cache was written for which drafted token, so that accepted ones can stay.

Knows neither layers nor the cache; rows are numbered in the order in which they were written.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch


@dataclass
class DraftedRows:
    """The rows of a round: trees of tokens below the root, a level at a time."""

    tokens: list[torch.Tensor] = field(default_factory=list)
    parents: list[torch.Tensor] = field(default_factory=list)

    def add(self, tokens: torch.Tensor, visible: torch.Tensor) -> None:
        """Rows of a further level, as `tree_growth.Step` gets them: `int64 (n,)` tokens of the target, and
        `bool (n, rows so far)` with ancestors and self."""
        parents = torch.full_like(tokens, -1)
        if self.tokens:
            start, stop = visible.shape[1] - len(tokens) - len(self.tokens[-1]), visible.shape[1] - len(tokens)
            parents = start + visible[:, start:stop].int().argmax(dim=1)  # the one ancestor in the level above
        self.tokens.append(tokens)
        self.parents.append(parents)

    def along(self, accepted: Sequence[int]) -> list[int]:
        """Rows of the first of the `accepted` tokens, as far as each has a row below that of the one before. One
        device sync."""
        if not self.tokens or not accepted:
            return []
        tokens, parents = torch.stack([torch.cat(self.tokens), torch.cat(self.parents)]).tolist()
        row_of = {(parent, token): row for row, (token, parent) in enumerate(zip(tokens, parents, strict=True))}
        rows: list[int] = []
        for token in accepted:
            row = row_of.get((rows[-1] if rows else -1, token))
            if row is None:
                break
            rows.append(row)
        return rows
