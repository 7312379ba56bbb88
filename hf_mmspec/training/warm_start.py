"""A start in closed form: the drafter begins as the best linear predictor of the target's next feature.

Only where the fused input reaches the output through the residual stream, as in EAGLE-like drafters with one `fc`.
"""

import torch

from hf_mmspec.modeling import ViSpecDrafter

from .batches import collate
from .records import Record
from .trainer import TargetParts


@torch.no_grad()
def warm_start(
    drafter: ViSpecDrafter, parts: TargetParts, records: list[Record], ridge: float = 1e-2, batch_size: int = 32
) -> None:
    """Set `fc` to the ridge regression of feature j + 1 on [embedding j + 1 ; feature j] over answer rows, and let the
    layer's two output projections start near zero, so that training begins from that and not from noise.

    Args:
        ridge: regularisation, relative to the mean variance of the inputs.
    """
    hidden = drafter.config.hidden_size
    gram = torch.zeros(2 * hidden + 1, 2 * hidden + 1, dtype=torch.float64)
    cross = torch.zeros(2 * hidden + 1, hidden, dtype=torch.float64)
    for start in range(0, len(records), batch_size):
        batch = collate(records[start : start + batch_size], parts.embed)
        rows = batch.loss_mask
        inputs = torch.cat([batch.inputs_embeds.roll(-1, 1)[rows], batch.features[rows]], dim=-1)
        inputs = torch.nn.functional.pad(inputs, (0, 1), value=1.0)
        gram += (inputs.T @ inputs).double()
        cross += (inputs.T @ batch.features.roll(-1, 1)[rows]).double()
    scale = gram.diagonal()[:-1]
    # embeddings are far smaller than features: each half is regularised by its own variance
    penalty = torch.cat([half.mean().expand(hidden) for half in scale.split(hidden)] + [scale.new_zeros(1)])
    solution = torch.linalg.solve(gram + torch.diag(ridge * penalty), cross).T
    drafter.fc.weight.copy_(solution[:, :-1])
    if drafter.fc.bias is not None:
        drafter.fc.bias.copy_(solution[:, -1])
    for layer in drafter.layers:
        layer.self_attn.o_proj.weight.mul_(0.1)
        layer.mlp.down_proj.weight.mul_(0.1)
