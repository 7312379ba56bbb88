"""A start in closed form: the drafter begins as the best linear predictor of the target's next state.

Only where the fused input reaches the output through the residual stream, as in EAGLE-like drafters with one `fc`.
"""

from collections.abc import Iterable
from typing import Any

import torch

from ..features.record import Record
from ..recipes.stage import RecipeError
from .collator import IGNORED, collate
from .drafter_with_loss import DrafterWithLoss


@torch.no_grad()
def warm_start(module: DrafterWithLoss, batches: Iterable[list[Record]], ridge: float = 1e-2) -> None:
    """Set `fc` to the ridge regression of state j + 1 on [embedding j + 1 ; feature j] over answer rows, and let the
    layer's two output projections start near zero, so that training begins from that and not from noise.

    Args:
        module: its drafter is changed.
        batches: all records, a list at a time.
        ridge: regularisation, relative to the mean variance of the inputs.

    Raises:
        RecipeError: the family has no such `fc`.
    """
    drafter = module.drafter
    hidden = drafter.config.hidden_size
    fc: Any = getattr(drafter, "fc", None)
    fits = isinstance(fc, torch.nn.Linear) and fc.weight.shape == (hidden, 2 * hidden)
    if not fits or drafter.feature_layers is not None:  # two taps are as wide
        raise RecipeError(
            f"closed_form_start: {drafter.config.model_type} has no linear layer over [embedding ; feature]"
        )
    solution = _ridge(module, batches, hidden, ridge).to(fc.weight)
    fc.weight.copy_(solution[:, :-1])
    if fc.bias is not None:
        fc.bias.copy_(solution[:, -1])
    for layer in drafter.layers:
        layer.self_attn.o_proj.weight.mul_(0.1)
        layer.mlp.down_proj.weight.mul_(0.1)


def _ridge(module: DrafterWithLoss, batches: Iterable[list[Record]], hidden: int, ridge: float) -> torch.Tensor:
    """`float64 (H, 2H + 1)`: the regression's weights and bias."""
    gram = torch.zeros(2 * hidden + 1, 2 * hidden + 1, dtype=torch.float64)
    cross = torch.zeros(2 * hidden + 1, hidden, dtype=torch.float64)
    for records in batches:
        batch = collate(records, device=module.drafter.device)
        rows, features = batch["labels"] != IGNORED, batch["features"].float()
        embeds = module.merged_embeds(batch).float()
        inputs = torch.cat([embeds.roll(-1, 1)[rows], features[rows]], dim=-1)
        inputs = torch.nn.functional.pad(inputs, (0, 1), value=1.0)
        states = batch.get("states", batch["features"]).float()
        gram += (inputs.T @ inputs).double().cpu()
        cross += (inputs.T @ states.roll(-1, 1)[rows]).double().cpu()
    # embeddings are far smaller than features: each half is regularised by its own variance
    scale = gram.diagonal()[:-1]
    penalty = torch.cat([half.mean().expand(hidden) for half in scale.split(hidden)] + [scale.new_zeros(1)])
    return torch.linalg.solve(gram + torch.diag(ridge * penalty), cross).T
