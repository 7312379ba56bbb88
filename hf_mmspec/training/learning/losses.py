"""Losses between what the drafter says and what the target said, one value per row.

Rows are already chosen; weighting and averaging are done in `drafter_with_loss.py`.
"""

from collections.abc import Callable

import torch
from torch.nn.functional import smooth_l1_loss

LogitsLoss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
_LEAST = torch.finfo(torch.float32).min


def log_probabilities(logits: torch.Tensor) -> torch.Tensor:
    """`log_softmax`, where ids that are masked by -inf get the least number instead: times a probability of 0 that is
    0 and not NaN."""
    return logits.log_softmax(-1).clamp(min=_LEAST)


def soft_cross_entropy(draft: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Cross-entropy against the target's distribution: logits `(n, V)` both, `(n,)` out (EAGLE, arXiv 2401.15077,
    section 4.2). Its gradient is that of the forward KL divergence."""
    return -(target.softmax(-1) * log_probabilities(draft)).sum(-1)


def reverse_kl(draft: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """KL(drafter || target): punishes what the drafter says and the target would not."""
    log_draft = log_probabilities(draft)
    return (log_draft.exp() * (log_draft - log_probabilities(target))).sum(-1)


def total_variation(draft: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Sum of absolute differences of the two distributions, twice the rejection probability of sampling."""
    return (draft.softmax(-1) - target.softmax(-1)).abs().sum(-1)


def list_mle(draft: torch.Tensor, target: torch.Tensor, top: int = 10) -> torch.Tensor:
    """Negative log-likelihood, under the drafter, of ranking the target's `top` tokens in the target's order."""
    best = target.topk(min(top, target.shape[-1]), dim=-1).indices
    scores = draft.gather(-1, best).clamp(min=_LEAST)
    remaining = scores.flip(-1).logcumsumexp(-1).flip(-1)
    return (remaining - scores).sum(-1)


def acceptance(draft: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Negative logarithm of the acceptance probability of speculative sampling, the sum of the smaller probabilities:
    the likelihood that drafts are taken (LK loss, arXiv 2602.23881)."""
    log_smaller = torch.minimum(draft.log_softmax(-1), target.log_softmax(-1))
    return -log_smaller.logsumexp(-1)


def lk_hybrid(draft: torch.Tensor, target: torch.Tensor, steepness: float = 3.0) -> torch.Tensor:
    """Cross-entropy where drafts are mostly refused, total variation where they are mostly taken: weights
    `exp(-steepness * acceptance)` and the rest, without gradient (the mixed form of arXiv 2602.23881)."""
    with torch.no_grad():
        refused = torch.exp(-steepness * (-acceptance(draft, target)).exp())
    mixed = (1 - refused) * total_variation(draft, target) / 2
    return refused * soft_cross_entropy(draft, target) + mixed


def feature_regression(hidden: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    """Smooth L1 between the drafter's output and the target's next state, `(n, H)` to `(n,)` (EAGLE-1)."""
    return smooth_l1_loss(hidden.float(), features.float(), reduction="none").mean(-1)


# ViSpec's stage-2 loss is 10 * total_variation + 0.1 * list_mle (its training code).
LOSSES: dict[str, LogitsLoss] = {
    "soft_cross_entropy": soft_cross_entropy,
    "reverse_kl": reverse_kl,
    "total_variation": total_variation,
    "list_mle": list_mle,
    "acceptance": acceptance,
    "lk_hybrid": lk_hybrid,
}
FEATURE_REGRESSION = "feature_regression"
