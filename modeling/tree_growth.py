"""How trees or chains grow, given a function that drafts one level: EAGLE-2 trees, greedy and sampled chains.

The rows of a batch grow side by side, level by level, each to its own end. Knows no model: `step` hides the layers,
the cache and the fusion of inputs.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from .draft_tree import DraftBudget, DraftTree
from .inverse_cdf import draw


@dataclass(frozen=True)
class Rows:
    """Output of a draft step for n nodes in each row: `hidden (B, n, H)` and `logits (B, n, draft_vocab)`."""

    hidden: torch.Tensor
    logits: torch.Tensor

    def select(self, nodes: torch.Tensor) -> torch.Tensor:
        """Hidden states of the given nodes `(B, k)`, `(B, k, H)`."""
        return self.hidden.gather(1, nodes[..., None].expand(-1, -1, self.hidden.shape[-1]))


# step(tokens (B, n), features (B, n, H), level, visible): one forward over the n nodes of a level in each row (the
# children of the root are level 0). `visible` is bool (B, n, scratch columns written so far, own n included):
# ancestors and self.
Step = Callable[[torch.Tensor, torch.Tensor, int, torch.Tensor], Rows]
ToTarget = Callable[[torch.Tensor], torch.Tensor]
Budgets = Sequence[DraftBudget]


def grow_trees(roots: torch.Tensor, first: Rows, step: Step, to_target: ToTarget, budgets: Budgets) -> list[DraftTree]:
    """EAGLE-2's dynamic tree (arXiv 2406.16858, section 4) in each row: expand the most probable nodes, then rerank
    all.

    Args:
        roots: `int64 (B,)`, the last known tokens.
        first: the drafter's output for them (one node), from which the first level is read.
        step: drafts one level.
        to_target: maps draft ids to ids of the target.
        budgets: each row's: `top_k` beams and children, `levels` levels, `total_tokens` nodes after reranking; its
            threshold ends the growth where the drafter has become unsure, and its prices then cut the tree. They
            differ in `depth` at most.
    """
    k = min(budgets[0].top_k, first.logits.shape[-1])
    log_probs, ids = top_log_probs(first.logits, k)
    tokens, scores = to_target(ids[:, 0]), log_probs[:, 0]
    pool_tokens, pool_scores, pool_parents = [tokens], [scores], [torch.full_like(tokens, -1)]
    pool_depths, pool_size = [torch.ones_like(tokens)], k
    own = torch.eye(k, dtype=torch.bool, device=tokens.device).expand(len(roots), k, k)
    features, visible = first.hidden.expand(-1, k, -1), own
    beam = torch.arange(k, device=tokens.device).expand(len(roots), k)
    growing = [budget.levels > 0 for budget in budgets]
    sizes = [k if grows else 0 for grows in growing]  # how much of the pool is each row's own
    depths_drafted = [int(grows) for grows in growing]

    for level in range(1, max(budget.levels for budget in budgets)):
        growing = _still_growing(growing, budgets, level, scores)
        if not any(growing):
            break
        rows = step(tokens, features, level - 1, visible)
        log_probs, ids = top_log_probs(rows.logits, k)
        child_scores = (scores[..., None] + log_probs).flatten(1)
        child_tokens = to_target(ids.flatten(1))
        pool_tokens.append(child_tokens)
        pool_scores.append(child_scores)
        pool_parents.append(beam.repeat_interleave(k, dim=1))
        pool_depths.append(torch.full_like(child_tokens, level + 1))
        scores, best = child_scores.topk(k)
        parent = best // k
        tokens, features = child_tokens.gather(1, best), rows.select(parent)
        ancestors = visible.gather(1, parent[..., None].expand(-1, -1, visible.shape[-1]))
        visible = torch.cat([ancestors, own], dim=-1)
        beam = best + pool_size
        pool_size += k * k
        sizes = [pool_size if grows else size for grows, size in zip(growing, sizes, strict=True)]
        depths_drafted = [level + 1 if grows else own for grows, own in zip(growing, depths_drafted, strict=True)]

    candidates = zip(
        *(torch.cat(each, dim=1) for each in (pool_tokens, pool_parents, pool_depths, pool_scores)), strict=True
    )
    trees = []
    for root, pool, size, levels, budget in zip(roots, candidates, sizes, depths_drafted, budgets, strict=True):
        own_tokens, parents, depths, own_scores = (column[:size] for column in pool)
        limits = budget.total_tokens, budget.worth, levels
        trees.append(DraftTree.from_candidates(root, own_tokens, parents, depths, own_scores, *limits))
    return trees


def grow_chains(
    roots: torch.Tensor, first: Rows, step: Step, to_target: ToTarget, budgets: Budgets
) -> list[DraftTree]:
    """In each row one branch of at most `budget.levels` most probable tokens. Arguments as in `grow_trees`."""

    def most_probable(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        log_probs, ids = top_log_probs(logits, 1)
        return ids[..., 0], log_probs[..., 0]

    tokens, scores, sizes = _extend_chains(roots, first, step, to_target, budgets, most_probable)
    chains = []
    for row, (budget, size) in enumerate(zip(budgets, sizes, strict=True)):
        kept = 1 + budget.worth(scores[row, 1:size])  # scores fall along the chain, so this cuts its end
        chains.append(DraftTree.chain(tokens[row, :kept], scores[row, :kept], levels=size - 1))
    return chains


def sample_chains(
    roots: torch.Tensor,
    first: Rows,
    step: Step,
    to_target: ToTarget,
    budgets: Budgets,
    temperature: float,
    vocab_size: int,
) -> list[DraftTree]:
    """In each row one branch drawn from softmax(logits / temperature), with the distributions it was drawn from.

    They are spread over the target's `vocab_size` ids (zero where the draft vocabulary has no such token), so that
    p/q speculative sampling can use them directly. Thresholds do not apply: leaving out a token because of what was
    drawn would change the distribution, and a drawn token is accepted with min(1, p/q), of which q alone says nothing.
    """
    if temperature <= 0:
        raise ValueError(f"temperature must be positive to sample a chain, got {temperature}; None drafts greedily")
    drawn: list[torch.Tensor] = []

    def choose(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        # A drafter that overflows (half precision) guesses badly; it must not end the request.
        probs = (logits[:, 0].float() / temperature).nan_to_num().softmax(-1)
        drawn.append(probs)
        tokens = draw(probs)
        return tokens, probs.gather(1, tokens).log()

    without_thresholds = [DraftBudget(b.depth, b.top_k, b.total_tokens, b.mode) for b in budgets]
    tokens, scores, sizes = _extend_chains(roots, first, step, to_target, without_thresholds, choose)
    ids = to_target(torch.arange(drawn[0].shape[1], device=roots.device))
    known = ids < vocab_size
    probs = torch.zeros(len(roots), 1 + len(drawn), vocab_size, device=roots.device)  # node 0, the root: not drawn
    probs[:, 1:, ids[known]] = torch.stack(drawn, dim=1)[..., known]
    return [DraftTree.chain(tokens[r, :size], scores[r, :size], probs[r, :size]) for r, size in enumerate(sizes)]


def _extend_chains(roots, first, step, to_target, budgets, choose) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
    """Tokens and scores `(B, longest)`, roots first, and how many of them are each row's own."""
    tokens, scores = [roots[:, None]], [torch.zeros(len(roots), 1, device=roots.device)]
    rows, growing, sizes = first, [True] * len(roots), [1] * len(roots)
    for level in range(max(budget.levels for budget in budgets)):
        growing = _still_growing(growing, budgets, level, scores[-1])
        if not any(growing):
            break
        if level > 0:
            visible = torch.ones(len(roots), 1, level, dtype=torch.bool, device=roots.device)
            rows = step(tokens[-1], rows.hidden, level - 1, visible)
        draft_ids, log_probs = choose(rows.logits)
        tokens.append(to_target(draft_ids))
        scores.append(scores[-1] + log_probs)
        sizes = [size + grows for size, grows in zip(sizes, growing, strict=True)]
    return torch.cat(tokens, dim=1), torch.cat(scores, dim=1), sizes


def _still_growing(growing: list[bool], budgets: Budgets, level: int, scores: torch.Tensor) -> list[bool]:
    """Which rows get a level below those `level` that they have; `scores (B, n)` are those of the nodes that would be
    expanded. The first level is always worth drafting."""
    wanted = [grows and level < budget.levels for grows, budget in zip(growing, budgets, strict=True)]
    threshold = budgets[0].level_threshold
    if level == 0 or threshold == 0 or not any(wanted):
        return wanted
    likely = (scores.exp().sum(-1) >= threshold).tolist()  # waits for the device
    return [grows and sure for grows, sure in zip(wanted, likely, strict=True)]


def top_log_probs(logits: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The k best log-probabilities of each node in float32, and their draft ids. A node that overflowed has -inf:
    NaN would be sorted above everything, its own parents included."""
    log_probs = logits.float().log_softmax(-1)
    if k > 1:
        return _dead_where_nan(log_probs).topk(k)
    best, ids = log_probs.max(-1, keepdim=True)  # cheaper; one overflow makes all of a node's numbers NaN
    return _dead_where_nan(best), ids


def _dead_where_nan(log_probs: torch.Tensor) -> torch.Tensor:
    return log_probs.nan_to_num(nan=-math.inf, neginf=-math.inf)
