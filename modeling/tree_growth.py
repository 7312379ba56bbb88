"""How a tree or a chain grows, given a function that drafts one level: EAGLE-2 trees, greedy and sampled chains.

Knows no model: `step` hides the layers, the cache and the fusion of inputs.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from .draft_tree import DraftBudget, DraftTree


@dataclass(frozen=True)
class Rows:
    """Output of a draft step for n rows: `hidden (n, H)` and `logits (n, draft_vocab)`."""

    hidden: torch.Tensor
    logits: torch.Tensor

    def select(self, rows: torch.Tensor) -> torch.Tensor:
        """Hidden states of the given rows, `(len(rows), H)`."""
        return self.hidden[rows]


# step(tokens (n,), features (n, H), level, visible): one forward over the n nodes of a level (0-based: the children of
# the root are level 0). `visible` is bool (n, scratch rows written so far, own n included): ancestors and self.
Step = Callable[[torch.Tensor, torch.Tensor, int, torch.Tensor], Rows]
ToTarget = Callable[[torch.Tensor], torch.Tensor]


def grow_tree(root: torch.Tensor, first: Rows, step: Step, to_target: ToTarget, budget: DraftBudget) -> DraftTree:
    """EAGLE-2's dynamic tree (arXiv 2406.16858, section 4): expand the most probable nodes, then rerank all.

    Args:
        root: `int64 (1,)`, the last known token.
        first: the drafter's output for it (one row), from which the first level is read.
        step: drafts one level.
        to_target: maps draft ids to ids of the target.
        budget: `top_k` beams and children, `levels` levels, `total_tokens` nodes after reranking; its thresholds end
            the growth where the drafter has become unsure.
    """
    k = min(budget.top_k, first.logits.shape[-1])
    log_probs, ids = top_log_probs(first.logits, k)
    tokens, scores = to_target(ids[0]), log_probs[0]
    pool_tokens, pool_scores, pool_parents = [tokens], [scores], [torch.full_like(tokens, -1)]
    pool_depths, pool_size = [torch.ones_like(tokens)], k
    own = torch.eye(k, dtype=torch.bool, device=tokens.device)
    features, visible, beam = first.hidden.expand(k, -1), own, torch.arange(k, device=tokens.device)

    for level in range(budget.levels - 1):
        if budget.stops_at(scores):
            break
        rows = step(tokens, features, level, visible)
        log_probs, ids = top_log_probs(rows.logits, k)
        child_scores = (scores[:, None] + log_probs).flatten()
        child_tokens = to_target(ids.flatten())
        pool_tokens.append(child_tokens)
        pool_scores.append(child_scores)
        pool_parents.append(beam.repeat_interleave(k))
        pool_depths.append(torch.full_like(child_tokens, level + 2))
        scores, best = child_scores.topk(k)
        parent = best // k
        tokens, features = child_tokens[best], rows.select(parent)
        visible = torch.cat([visible[parent], own], dim=1)
        beam = best + pool_size
        pool_size += k * k

    return DraftTree.from_candidates(
        root,
        tokens=torch.cat(pool_tokens),
        parents=torch.cat(pool_parents),
        depths=torch.cat(pool_depths),
        scores=torch.cat(pool_scores),
        total_tokens=budget.total_tokens,
        least_score=budget.least_score,
        levels=len(pool_tokens),
    )


def grow_chain(root: torch.Tensor, first: Rows, step: Step, to_target: ToTarget, budget: DraftBudget) -> DraftTree:
    """One branch of at most `budget.levels` most probable tokens. Arguments as in `grow_tree`."""

    def most_probable(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        log_probs, ids = top_log_probs(logits, 1)
        return ids[0], log_probs[0]

    tokens, scores = _extend_chain(root, first, step, to_target, budget, most_probable)
    levels = tokens.shape[0] - 1
    if budget.node_threshold > 0:
        sure = scores >= budget.least_score  # scores fall along the chain, so this cuts its end
        tokens, scores = tokens[sure], scores[sure]
    return DraftTree.chain(tokens, scores, levels=levels)


def sample_chain(
    root: torch.Tensor,
    first: Rows,
    step: Step,
    to_target: ToTarget,
    budget: DraftBudget,
    temperature: float,
    vocab_size: int,
) -> DraftTree:
    """One branch drawn from softmax(logits / temperature), with the distributions it was drawn from.

    They are spread over the target's `vocab_size` ids (zero where the draft vocabulary has no such token), so that
    p/q speculative sampling can use them directly. Thresholds do not apply: leaving out a token because of what was
    drawn would change the distribution, and a drawn token is accepted with min(1, p/q), of which q alone says nothing.
    """
    if temperature <= 0:
        raise ValueError(f"temperature must be positive to sample a chain, got {temperature}; None drafts greedily")
    drawn = [torch.zeros(vocab_size, device=root.device)]  # row 0: the root was not drawn

    def draw(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        # A drafter that overflows (half precision) guesses badly; it must not end the request.
        probs = (logits[0].float() / temperature).nan_to_num().softmax(-1)
        token = torch.multinomial(probs, 1)
        draft_ids = torch.arange(probs.shape[0], device=probs.device)
        ids = to_target(draft_ids)
        drawn.append(drawn[0].scatter(0, ids[ids < vocab_size], probs[ids < vocab_size]))
        return token, probs[token].log()

    tokens, scores = _extend_chain(root, first, step, to_target, replace(budget, level_threshold=0.0), draw)
    return DraftTree.chain(tokens, scores, torch.stack(drawn))


def _extend_chain(root, first, step, to_target, budget, choose) -> tuple[torch.Tensor, torch.Tensor]:
    tokens, scores = [root], [torch.zeros(1, device=root.device)]
    rows = first
    for level in range(budget.levels):
        if level > 0:
            if budget.stops_at(scores[-1]):
                break
            visible = torch.ones(1, level, dtype=torch.bool, device=root.device)
            rows = step(tokens[-1], rows.hidden, level - 1, visible)
        draft_id, log_prob = choose(rows.logits)
        tokens.append(to_target(draft_id))
        scores.append(scores[-1] + log_prob)
    return torch.cat(tokens), torch.cat(scores)


def top_log_probs(logits: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The k best log-probabilities of each row in float32, and their draft ids. A row that overflowed has -inf:
    NaN would be sorted above everything, its own parents included."""
    return logits.float().log_softmax(-1).nan_to_num(nan=-math.inf, neginf=-math.inf).topk(k)
