"""What a drafter proposes in one round: a tree of tokens, and how large it may be.

Knows nothing about models, caches or acceptance; the grower and the verifier meet here.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Literal

import torch

DraftMode = Literal["tree", "chain"]


@dataclass(frozen=True)
class DraftBudget:
    """How much a drafter may propose in one round.

    Args:
        depth: levels below the root, so at most this many drafts can be accepted (0: the root alone). The `depth` D
            of the EAGLE-2 and ViSpec code counts the steps *after* level 1, which is `depth = D + 1` here.
        top_k: children per node and beams per level (EAGLE-2's K); ignored by chains.
        total_tokens: most nodes of the tree, the root included.
        mode: `"tree"`, or `"chain"` for a single branch.
        level_threshold: a further level is drafted only while it is reached with at least this probability: the sum of
            the drafter's path probabilities over the nodes that would be expanded. 0 always drafts all levels.
        prices: what so many nodes have to promise in tokens, the root included: entry n - 1 is for n nodes, and none
            is less than the one before. Of the nodes with the most probable paths as many are proposed as promise
            most above their price. Empty keeps all.
        exponent: a node whose path has the drafter's probability p promises `p ** exponent` tokens.

    Raises:
        ValueError: a count, a threshold, a price or the exponent is out of range or the mode is unknown.
    """

    depth: int
    top_k: int
    total_tokens: int
    mode: DraftMode = "tree"
    level_threshold: float = 0.0
    prices: tuple[float, ...] = ()
    exponent: float = 1.0

    def __post_init__(self) -> None:
        for name, least in (("depth", 0), ("top_k", 1), ("total_tokens", 1)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"draft budget: {name} must be an integer of at least {least}, got {value!r}")
        if not 0 <= self.level_threshold <= 1:
            raise ValueError(f"draft budget: level_threshold must be a probability, got {self.level_threshold!r}")
        if not all(0 <= less <= more < math.inf for less, more in pairwise((0.0, *self.prices))):
            raise ValueError(f"draft budget: prices must be positive and must not fall, got {self.prices!r}")
        if not 0 < self.exponent < math.inf:
            raise ValueError(f"draft budget: exponent must be positive, got {self.exponent!r}")
        if self.mode not in ("tree", "chain"):
            raise ValueError(f'draft budget: mode must be "tree" or "chain", got {self.mode!r}')

    @property
    def levels(self) -> int:
        """Levels that can really be filled: no level is without a node, so never more than `total_tokens - 1`."""
        return min(self.depth, self.total_tokens - 1)

    def limited_to(self, levels: int) -> "DraftBudget":
        """The same budget with at most `levels` levels (negative counts as 0)."""
        return replace(self, depth=min(self.depth, max(levels, 0)))

    def worth(self, scores: torch.Tensor) -> int:
        """How many drafted nodes to propose.

        Args:
            scores: `float32 (m,)`, cumulative log-probabilities of the nodes, falling.
        """
        if not self.prices:
            return scores.shape[0]
        promised = (self.exponent * scores[: len(self.prices) - 1]).exp().cumsum(0)
        prices = torch.tensor(self.prices[: 1 + promised.shape[0]], device=scores.device)
        return int((torch.nn.functional.pad(promised, (1, 0)) - prices).argmax())  # waits for the device


@dataclass
class DraftTree:
    """A proposal of n nodes; node 0 is the root, the last token that is already known.

    Always ancestor-closed: the parent of every node is in the tree, with a smaller index.

    Args:
        tokens: `int64 (n,)`, ids of the target's vocabulary.
        parents: `int64 (n,)`, -1 for the root.
        depths: `int64 (n,)`, 0 for the root.
        scores: `float32 (n,)`, cumulative log-probability under the drafter, 0 for the root.
        proposal_probs: `float32 (n, vocab_size)` for chains that were sampled: row j is the distribution that node j
            was drawn from (row 0 is unused). None where the proposal is deterministic.
        levels: levels that a drafter drafted, forced runs not counted; at least those that are left of them. By
            default those that there are.
    """

    tokens: torch.Tensor
    parents: torch.Tensor
    depths: torch.Tensor
    scores: torch.Tensor
    proposal_probs: torch.Tensor | None = None
    levels: int = field(default=-1, compare=False)
    _children: list[dict[int, int]] | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.levels < 0:
            self.levels = int(self.depths.max())

    def __len__(self) -> int:
        return self.tokens.shape[0]

    @classmethod
    def root_only(cls, token: torch.Tensor | int) -> "DraftTree":
        """A tree without any draft; `token` is the known last token (an int, or a tensor with one element)."""
        return cls.chain(torch.as_tensor(token).reshape(1))

    @classmethod
    def chain(
        cls,
        tokens: torch.Tensor,
        scores: torch.Tensor | None = None,
        proposal_probs: torch.Tensor | None = None,
        levels: int | None = None,
    ) -> "DraftTree":
        """One branch. `tokens` is `int64 (n,)` with the root first; `scores` default to zeros."""
        depths = torch.arange(tokens.shape[0], device=tokens.device)
        if scores is None:
            scores = torch.zeros(tokens.shape[0], device=tokens.device)
        return cls(
            tokens, depths - 1, depths, scores, proposal_probs, tokens.shape[0] - 1 if levels is None else levels
        )

    @classmethod
    def from_candidates(
        cls,
        root: torch.Tensor,
        tokens: torch.Tensor,
        parents: torch.Tensor,
        depths: torch.Tensor,
        scores: torch.Tensor,
        total_tokens: int,
        worth: Callable[[torch.Tensor], int] = len,
        levels: int = -1,
    ) -> "DraftTree":
        """Keep the best `total_tokens - 1` of m candidates (EAGLE-2, section 4.2 "reranking"), or as many of these as
        `worth` says (see `DraftBudget.worth`).

        Candidates come in the order of generation: `tokens, parents, depths, scores (m,)`, where `parents` are
        candidate indices, -1 for children of the root, always smaller than the child's own index, and a child never
        scores more than its parent. Ranking is a *stable* descending sort in float32, so on a tie the parent (the
        smaller index) wins and the result stays ancestor-closed; a plain top-k may cut a parent and keep its child.
        """
        ranked = scores.float().sort(descending=True, stable=True)
        best = worth(ranked.values[: total_tokens - 1])
        keep = ranked.indices[:best].sort().values
        node_of = torch.zeros(scores.shape[0] + 1, dtype=torch.long, device=scores.device)
        node_of[keep] = torch.arange(1, keep.shape[0] + 1, device=scores.device)
        # a parent of -1 reads the last slot, which stays 0: the root
        return cls(
            tokens=torch.cat([root.reshape(1), tokens[keep]]),
            parents=torch.nn.functional.pad(node_of[parents[keep]], (1, 0), value=-1),
            depths=torch.nn.functional.pad(depths[keep], (1, 0)),
            scores=torch.nn.functional.pad(scores[keep].float(), (1, 0)),
            levels=levels,
        )

    def ancestor_mask(self) -> torch.Tensor:
        """`bool (n, n)`: [i, j] is True where j is i itself or one of its ancestors. No device sync."""
        return ancestor_masks(self.parents[None])[0]

    def children(self) -> list[dict[int, int]]:
        """For every node its children as `{token: node}`. Built once; waits for the device.

        Of two siblings with the same token the first, which scores at least as much, is kept.
        """
        if self._children is None:
            tokens, parents = torch.stack([self.tokens, self.parents]).tolist()
            children: list[dict[int, int]] = [{} for _ in tokens]
            for node in range(1, len(tokens)):
                children[parents[node]].setdefault(tokens[node], node)
            self._children = children
        return self._children

    def leaf_paths(self) -> torch.Tensor:
        """`int64 (leaves, deepest + 1)`: node ids from the root to each leaf, -1 padded, leaves in increasing node id.

        The same as `retrieve_indices` of the EAGLE code in greedy mode.
        """
        parents = self.parents.tolist()
        inner = set(parents)
        paths = [_path_to(node, parents) for node in range(len(parents)) if node not in inner]
        width = max(map(len, paths))
        return torch.tensor([path + [-1] * (width - len(path)) for path in paths], device=self.tokens.device)


def ancestor_masks(parents: torch.Tensor) -> torch.Tensor:
    """`bool (B, n, n)` from `parents (B, n)`, see `DraftTree.ancestor_mask`; a node without parent has -1."""
    n = parents.shape[1]
    nodes = torch.arange(n, device=parents.device)
    reach = torch.eye(n, device=parents.device).repeat(parents.shape[0], 1, 1)
    reach.scatter_(2, torch.where(parents < 0, nodes, parents)[..., None], 1.0)
    for _ in range(max(n - 1, 1).bit_length()):  # path doubling
        reach = (reach @ reach).clamp_(max=1)
    return reach.bool()


def _path_to(node: int, parents: list[int]) -> list[int]:
    path = []
    while node >= 0:
        path.append(node)
        node = parents[node]
    return path[::-1]
