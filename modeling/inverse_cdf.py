"""Drawing from unnormalised probabilities by one number and a running sum.

`torch.multinomial` makes an exponential variate for every entry of a vocabulary, one after the other. Knows nothing
about tokens.
"""

import torch


def draw(weights: torch.Tensor) -> torch.Tensor:
    """An index for each row of `weights (B, n)`, at least one of them positive and none NaN, in proportion to them:
    `int64 (B, 1)`. In float64, so that a long tail keeps its share; an entry without weight is never drawn."""
    has_float64 = weights.device.type != "mps"
    sums = weights.to(weights.device if has_float64 else "cpu", torch.float64).cumsum(-1)
    # Above 0, so that no weightless entry at the beginning reaches it, and at most the sum, so that some entry does.
    point = sums[:, -1:] * (1 - torch.rand(len(sums), 1, dtype=torch.float64, device=sums.device))
    return torch.searchsorted(sums, point).to(weights.device)
