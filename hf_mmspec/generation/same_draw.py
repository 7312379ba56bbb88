"""What `torch.multinomial` draws on the CPU, from the same random numbers, sooner.

torch makes an exponential variate for every entry and takes the entry with the largest quotient weight / variate. Only
entries that have weight can win, and after `top_k` few have, so few variates are needed; the uniform numbers they come
from are all drawn, so that a seed goes on meaning what it means in `generate`. Knows nothing about tokens.
"""

from functools import cache

import torch


def multinomial(weights: torch.Tensor) -> torch.Tensor:
    """`torch.multinomial(weights, 1)` for `weights (1, n)`: the same index `int64 (1, 1)`, the same state of the
    generator afterwards, the same errors."""
    if weights.device.type != "cpu" or weights.dtype != torch.float32 or not _is_torchs_way():
        return torch.multinomial(weights, 1)
    return _multinomial(weights)


def _multinomial(weights: torch.Tensor) -> torch.Tensor:
    total = float(weights.sum())
    if not 0 < total < torch.inf:
        return torch.multinomial(weights, 1)  # says what is wrong
    uniform = torch.empty(weights.shape, dtype=torch.float64).uniform_()
    possible = weights[0].nonzero()[:, 0]
    variates = -torch.log1p(-uniform[0, possible])
    return possible[(weights[0, possible] / variates.float()).argmax()].view(1, 1)


@cache
def _is_torchs_way() -> bool:
    """Whether this torch draws as described: it promises nothing, so it is tried once in a process."""
    with torch.random.fork_rng(devices=[]):
        weights = torch.rand(1, 1000).square()
        weights[0, ::3] = 0
        for seed in range(3):
            found = []
            for way in (torch.multinomial, lambda each, _: _multinomial(each)):
                torch.default_generator.manual_seed(seed)  # `torch.manual_seed` would seed accelerators too
                found.append((way(weights, 1).tolist(), torch.get_rng_state().tolist()))
            if found[0] != found[1]:
                return False
    return True
