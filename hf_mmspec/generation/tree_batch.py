"""The trees of a batch's rows as tensors of one size, for one forward over all of them.

Knows nothing about the cache or the mask that they are verified with.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from hf_mmspec.modeling import DraftTree
from hf_mmspec.modeling.draft_tree import ancestor_masks
from hf_mmspec.modeling.row_plan import pad_rows


@dataclass(frozen=True)
class TreeBatch:
    """B trees, padded to n nodes each. A padding node stands where the root stands and sees no other node: it computes
    something that nobody reads.

    Args:
        tokens: `int64 (B, n)`.
        depths: `int64 (B, n)`.
        ancestors: `bool (B, n, n)`, see `DraftTree.ancestor_mask`.
    """

    tokens: torch.Tensor
    depths: torch.Tensor
    ancestors: torch.Tensor

    @classmethod
    def of(cls, trees: Sequence[DraftTree], spare: int = 0) -> "TreeBatch":
        """Side by side, in the order of the rows, with `spare` padding nodes at least."""
        if spare == 0 and all(len(tree) == 1 for tree in trees):  # a plain step, which should cost no more than one
            roots = torch.cat([tree.tokens for tree in trees])[:, None]
            return cls(roots, torch.zeros_like(roots), torch.ones_like(roots, dtype=torch.bool)[..., None])

        def padded(columns: list[torch.Tensor], value: int = 0) -> torch.Tensor:
            return torch.nn.functional.pad(pad_rows(columns, value), (0, spare), value=value)

        parents = padded([tree.parents for tree in trees], value=-1)
        tokens = padded([tree.tokens for tree in trees])
        return cls(tokens, padded([tree.depths for tree in trees]), ancestor_masks(parents))
