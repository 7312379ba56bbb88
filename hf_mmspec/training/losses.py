"""Losses between what the drafter says and what the target said, one value per row.

Rows are already chosen; weighting and averaging are the trainer's.
"""

from collections.abc import Callable

import torch
from torch.nn.functional import smooth_l1_loss

LogitsLoss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def soft_cross_entropy(draft: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Cross-entropy against the target's distribution: logits `(n, V)` both, `(n,)` out (EAGLE, section 4.2)."""
    return -(target.softmax(-1) * draft.log_softmax(-1)).sum(-1)


def total_variation(draft: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Sum of absolute differences of the two distributions, twice the rejection probability of sampling."""
    return (draft.softmax(-1) - target.softmax(-1)).abs().sum(-1)


def list_mle(draft: torch.Tensor, target: torch.Tensor, top: int = 10) -> torch.Tensor:
    """Negative log-likelihood, under the drafter, of ranking the target's `top` tokens in the target's order."""
    best = target.topk(min(top, target.shape[-1]), dim=-1).indices
    scores = draft.gather(-1, best)
    remaining = scores.flip(-1).logcumsumexp(-1).flip(-1)
    return (remaining - scores).sum(-1)


def vispec(draft: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """ViSpec's stage-2 loss: 10 * total variation + 0.1 * ListMLE over the target's top 10 (their training code)."""
    return 10 * total_variation(draft, target) + 0.1 * list_mle(draft, target)


def feature_regression(hidden: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    """Smooth L1 between the drafter's output and the target's next feature, `(n, H)` to `(n,)` (EAGLE-1)."""
    return smooth_l1_loss(hidden.float(), features.float(), reduction="none").mean(-1)


LOSSES: dict[str, LogitsLoss] = {"soft_cross_entropy": soft_cross_entropy, "vispec": vispec}
