"""EAGLE's losses as the authors' training scripts average them, over whatever slots a mask selects."""

import torch

from hf_mmspec.training.losses import feature_regression, soft_cross_entropy


def eagle_losses(hidden: torch.Tensor, target: torch.Tensor, head, mask: torch.Tensor):
    """Regression of features and soft cross-entropy of tokens, `(..., H)` at `mask (...)`, averaged over it."""
    count, width = mask.sum() + 1e-5, hidden.shape[-1]
    regression = feature_regression(hidden.reshape(-1, width), target.reshape(-1, width))
    crossing = soft_cross_entropy(head(hidden).flatten(0, -2), head(target).flatten(0, -2))
    return (regression * mask.flatten()).sum() / count, (crossing * mask.flatten()).sum() / count
