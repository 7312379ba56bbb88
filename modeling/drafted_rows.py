"""Which scratch column of a drafter's cache was written for which drafted token, so that accepted ones can stay.

Knows neither layers nor the cache; columns are numbered in the order in which they were written.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch


@dataclass
class DraftedRows:
    """The columns of a round in each row of a batch: trees of tokens below the root, a level at a time.

    Args:
        first: the cache's column where they begin.
    """

    first: int = 0
    tokens: list[torch.Tensor] = field(default_factory=list)
    parents: list[torch.Tensor] = field(default_factory=list)

    def add(self, tokens: torch.Tensor, visible: torch.Tensor) -> None:
        """Columns of a further level, as `tree_growth.Step` gets them: `int64 (B, n)` tokens of the target, and
        `bool (B, n, columns so far)` with ancestors and self."""
        parents = torch.full_like(tokens, -1)
        if self.tokens:
            stop = visible.shape[2] - tokens.shape[1]
            start = stop - self.tokens[-1].shape[1]
            parents = start + visible[:, :, start:stop].int().argmax(dim=2)  # the one ancestor in the level above
        self.tokens.append(tokens)
        self.parents.append(parents)

    def select(self, rows: Sequence[int]) -> None:
        """Keep only the given rows of the batch."""
        self.tokens = [level[list(rows)] for level in self.tokens]
        self.parents = [level[list(rows)] for level in self.parents]

    def along(self, accepted: Sequence[Sequence[int]]) -> list[list[int]]:
        """In each row the columns of the first of its `accepted` tokens, as far as each has a column below that of the
        one before. One device sync."""
        if not self.tokens or not any(accepted):
            return [[] for _ in accepted]
        tokens, parents = torch.stack([torch.cat(self.tokens, dim=1), torch.cat(self.parents, dim=1)]).tolist()
        return [_along(*row) for row in zip(tokens, parents, accepted, strict=True)]


def _along(tokens: list[int], parents: list[int], accepted: Sequence[int]) -> list[int]:
    column_of = {(parent, token): at for at, (token, parent) in enumerate(zip(tokens, parents, strict=True))}
    columns: list[int] = []
    for token in accepted:
        column = column_of.get((columns[-1] if columns else -1, token))
        if column is None:
            break
        columns.append(column)
    return columns
