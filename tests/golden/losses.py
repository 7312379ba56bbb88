"""EAGLE's losses as the authors' training scripts average them, over whatever slots a mask selects."""

import torch
from torch.nn.functional import smooth_l1_loss


def eagle_losses(hidden: torch.Tensor, target: torch.Tensor, head, mask: torch.Tensor):
    """Regression of features and soft cross-entropy of tokens, `(..., H)` at `mask (...)`, averaged over it."""
    count = mask.sum() + 1e-5
    regression = smooth_l1_loss(hidden, target, reduction="none").mean(-1)
    crossing = -(head(target).softmax(-1) * head(hidden).log_softmax(-1)).sum(-1)
    return (regression * mask).sum() / count, (crossing * mask).sum() / count
