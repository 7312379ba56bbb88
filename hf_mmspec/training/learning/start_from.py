"""A start from another drafter: every weight of the same name and shape, and the head's rows by token.

For the own answers of a published drafter's user, and for families that share their trunk. Knows no target.
"""

import torch

from hf_mmspec.modeling import Drafter

from ..recipes.recipe import RecipeError

_HEAD = "lm_head.weight"


@torch.no_grad()
def start_from(drafter: Drafter, other: Drafter) -> float:
    """Give `drafter` what it can use of `other`, of any family and draft vocabulary.

    Returns:
        The share of its parameters that were taken.

    Raises:
        RecipeError: none fits.
    """
    own, theirs = dict(drafter.named_parameters()), dict(other.named_parameters())
    taken = 0
    if _HEAD in own and _HEAD in theirs and own[_HEAD].shape[1] == theirs[_HEAD].shape[1]:
        taken += _take_head_rows(drafter, other, own.pop(_HEAD), theirs.pop(_HEAD))
    for name, weight in own.items():
        if name != _HEAD and name in theirs and theirs[name].shape == weight.shape:
            weight.copy_(theirs[name])
            taken += weight.numel()
    if not taken:
        raise RecipeError(
            f"no weight of this {drafter.config.model_type} drafter has the name and shape of one of the "
            f"{other.config.model_type} drafter that it should start from: their widths differ (drafter.hidden_size)"
        )
    return taken / sum(weight.numel() for weight in drafter.parameters())


def _take_head_rows(drafter: Drafter, other: Drafter, own: torch.Tensor, theirs: torch.Tensor) -> int:
    """Copy the head's rows of tokens that both can say; returns the number of parameters."""
    ids = drafter.to_target_ids(torch.arange(len(own))).tolist()
    known = other.to_target_ids(torch.arange(len(theirs))).tolist()
    row_of = {token: row for row, token in enumerate(known)}
    rows = [row for row, token in enumerate(ids) if token in row_of]
    own[rows] = theirs[[row_of[ids[row]] for row in rows]].to(own)
    return len(rows) * own.shape[1]
