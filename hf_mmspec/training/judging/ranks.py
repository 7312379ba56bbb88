"""At which rank the target's own tokens come when its answers are drafted again: seconds of work, from records.

What the automatic draft budget reads. True acceptance goes through `generate` (`acceptance.py`).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from ..features.record import Record
from ..learning.collator import IGNORED, collate
from ..learning.drafter_with_loss import DrafterWithLoss

# A round is taken to end where none of this many first choices is right: about the width of trees in use.
_ROUND_WIDTH = 3


@dataclass(frozen=True)
class Ranks:
    """Rank statistics at depth 1, 2, ...: all conditional on the path so far being in the tree.

    Args:
        by_rank: `[depth - 1][rank - 1]`: of the rounds that came so deep, the share in which the target's token is the
            drafter's child of that rank.
        chain: mean number of accepted drafts per round of a greedy chain of that many levels.
    """

    by_rank: list[list[float]]
    chain: float

    @property
    def by_depth(self) -> list[float]:
        """Share of positions where the first child is right."""
        return [row[0] for row in self.by_rank]


@torch.no_grad()
def measure_ranks(
    module: DrafterWithLoss, batches: Iterable[Sequence[Record]], depth: int = 8, top_k: int = 10
) -> Ranks:
    """Replay the target's own answers in rounds, as serving would, and note at which rank each token comes. A token
    that cannot be drafted is a miss. Drafters of k slots are asked for k levels at most.

    A round ends at a token that is none of the first `_ROUND_WIDTH` choices; the next one starts behind it. So what is
    counted at depth 1 follows a surprise, and is harder than a token anywhere in a text.

    Args:
        batches: all records, a list at a time.
    """
    module = DrafterWithLoss(module.drafter, module.parts, replace(module.stage, unroll=depth)).eval()
    hits, seen = torch.zeros(depth, top_k), torch.zeros(depth, 1)
    chain_accepted, chain_rounds = 0, 0
    for records in batches:
        batch = collate(records, device=module.drafter.device)
        ranks = torch.stack(_ranks_by_step(module, batch)).cpu()
        hits, seen = hits[: len(ranks)], seen[: len(ranks)]
        for answer, labels in zip(ranks.unbind(1), batch["labels"].cpu(), strict=True):
            rows = answer[:, labels != IGNORED]
            for round_ in replay(rows, _ROUND_WIDTH):
                for level, rank in enumerate(round_):
                    seen[level] += 1
                    if rank < top_k:
                        hits[level, rank] += 1
            rounds = replay(rows, 1)
            chain_rounds += len(rounds)
            chain_accepted += sum(rank == 0 for round_ in rounds for rank in round_)
    shares = hits / seen.clamp(min=1)
    return Ranks([[round(x, 4) for x in row] for row in shares.tolist()], chain_accepted / max(chain_rounds, 1))


def replay(ranks: torch.Tensor, width: int) -> list[list[int]]:
    """Cut an answer into rounds of drafting.

    Args:
        ranks: `int64 (depth, n)`: [d, j] is the rank of token j when it is drafted at depth d + 1, token j - d being
            the first of its round.
        width: a token is accepted when it is among the first `width` choices.

    Returns:
        The ranks that each round looks at, depth by depth; the last one of a round is a miss unless the depth or the
        answer ends there. The token after a round without a miss is the target's own and belongs to no round.
    """
    rounds, start, (depth, length) = [], 0, ranks.shape
    table = ranks.tolist()
    while start < length:
        looked: list[int] = []
        for level in range(min(depth, length - start)):
            looked.append(table[level][start + level])
            if looked[-1] >= width:
                break
        rounds.append(looked)
        start += len(looked) + (looked[-1] < width)
    return rounds


def _ranks_by_step(module: DrafterWithLoss, batch: dict[str, Any]) -> list[torch.Tensor]:
    """0-based ranks `(B, N)` of the next tokens, by unrolled step; a token that cannot be drafted ranks last."""
    drafter, parts = module.drafter, module.parts
    draft_ids = torch.full((drafter.config.vocab_size,), -1, device=drafter.device)
    draft_ids[parts.draft_ids] = torch.arange(len(parts.draft_ids), device=drafter.device)
    labels = batch["labels"]
    wanted = torch.where(labels == IGNORED, -1, draft_ids[labels.clamp(min=0)])
    ranks = []
    for hidden in module.hidden_states(batch):
        rank = torch.full(wanted.shape, len(parts.draft_ids), device=wanted.device)
        rows = wanted >= 0
        logits = drafter.draft_logits(hidden[rows], parts.borrowed).float()
        rank[rows] = (logits > logits.gather(-1, wanted[rows][:, None])).sum(-1)
        ranks.append(rank)
    return ranks
