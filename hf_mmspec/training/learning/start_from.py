"""A start from another drafter: every weight of the same name and shape, and the head's rows by token.

So that a published drafter goes on learning, and families of one trunk share what it has learned. Knows no target.
"""

import torch

from hf_mmspec.modeling import Drafter

from ..recipes.stage import RecipeError

_HEAD = "lm_head.weight"


@torch.no_grad()
def start_from(drafter: Drafter, other: Drafter) -> float:
    """Give `drafter` what it can use of `other`, of any family and draft vocabulary.

    Returns:
        The share of its parameters that were taken.

    Raises:
        RecipeError: none can fit, as the two have other widths.
    """
    widths = drafter.config.hidden_size, other.config.hidden_size
    if widths[0] != widths[1]:
        raise RecipeError(
            f"a drafter of width {widths[0]} cannot start from one of width {widths[1]}: their weights have other "
            "shapes (drafter.hidden_size)"
        )
    own, theirs = dict(drafter.named_parameters()), dict(other.named_parameters())
    taken = 0
    if _HEAD in own and _HEAD in theirs:
        taken += _take_head_rows(drafter, other, own.pop(_HEAD), theirs.pop(_HEAD))
    for name, weight in own.items():
        if name in theirs and theirs[name].shape == weight.shape:
            weight.copy_(theirs[name])
            taken += weight.numel()
    return taken / sum(weight.numel() for weight in drafter.parameters())


def _take_head_rows(drafter: Drafter, other: Drafter, own: torch.Tensor, theirs: torch.Tensor) -> int:
    """Copy the head's rows of tokens that both can say; returns the number of parameters."""
    ids = drafter.to_target_ids(torch.arange(len(own), device=own.device)).tolist()
    known = other.to_target_ids(torch.arange(len(theirs), device=theirs.device)).tolist()
    row_of = {token: row for row, token in enumerate(known)}
    rows = [row for row, token in enumerate(ids) if token in row_of]
    own[rows] = theirs[[row_of[ids[row]] for row in rows]].to(own)
    return len(rows) * own.shape[1]
