"""EAGLE's losses as the authors' training scripts average them, over whatever slots a mask selects."""

import torch

from hf_mmspec.training.learning.losses import feature_regression, soft_cross_entropy


def eagle_losses(hidden: torch.Tensor, target: torch.Tensor, head, mask: torch.Tensor):
    """Regression of features and soft cross-entropy of tokens, `(..., H)` at `mask (...)`, averaged over it."""
    chosen, count = mask > 0, mask.sum() + 1e-5
    weights, hidden, target = mask[chosen], hidden[chosen], target[chosen]
    regression, crossing = feature_regression(hidden, target), soft_cross_entropy(head(hidden), head(target))
    return (regression * weights).sum() / count, (crossing * weights).sum() / count
