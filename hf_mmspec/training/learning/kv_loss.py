"""The KV-cache loss: keys and values that the drafter writes while it drafts should be those that belong there.

Seedream 4.0 (arXiv 2509.20427) names such a loss and does not say what is compared; these are our two readings of it.
Knows no drafter; passes and batches come from `drafter_with_loss.py`.
"""

from collections.abc import Sequence
from typing import Any

import torch

from ..recipes.stage import Stage

KV = "kv"  # what it is called among the terms of a loss


def passes_of(stage: Stage) -> int:
    """How often the drafter has to run: the drafter is compared with itself only where it feeds on its own outputs."""
    return max(stage.unroll, 2) if stage.kv_loss_weight and stage.kv_loss_target == "self" else stage.unroll


def summed_kv_loss(
    stage: Stage, keys_values: Sequence[torch.Tensor], batch: dict[str, Any], step: int, rows: torch.Tensor
) -> torch.Tensor:
    """The mean absolute difference of keys (before the rotary embedding) and of values, half each, summed over rows.

    `"self"`: a row on the drafter's own outputs, as drafting writes it, against the same row on the target's features,
    as reading writes it, in all layers; 0 in the plain pass. Where a stage adds noise to features, these have it too.
    `"target_layer"`: the last layer of every pass against the target's layer. Slot j is for token j + 1, whose keys
    the target has at position j + 1.

    Args:
        keys_values: of the passes, see `DrafterOutput`. What it is compared with has no gradient.
        step: the pass.
        rows: `bool (B, N)`, slots that count.
    """
    written = keys_values[step][rows]
    if stage.kv_loss_target == "target_layer":
        return difference(written[:, -1], batch["keys_values"].roll(-1, dims=1)[rows]).sum()
    if step == 0:
        return written.new_zeros((), dtype=torch.float32)
    return difference(written, keys_values[0][rows]).sum()


def difference(written: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """`(n, ..., 2, kv_heads, head_dim)` both, to `(n,)`."""
    return (written.float() - wanted.detach().float()).abs().flatten(1).mean(-1)
