"""Keys and values of one layer of the target, before the rotary embedding, as a batch passes.

Only looks, like `generation/capture.py`; knows nothing about what they are compared with.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from hf_mmspec.modeling.binding import unwrap


class TargetLayerError(ValueError):
    """The target has no such keys and values; the message says why."""


class LayerRows:
    """What the layer's two projections gave in the last forward."""

    def __init__(self, kv_heads: int, head_dim: int) -> None:
        self._shape = kv_heads, head_dim
        self._seen: dict[str, torch.Tensor] = {}

    def see(self, name: str, rows: torch.Tensor) -> None:
        """`(B, L, kv_heads * head_dim)` of `k_proj` or `v_proj`."""
        self._seen[name] = rows

    @property
    def keys_values(self) -> torch.Tensor:
        """`(B, L, 2, kv_heads, head_dim)`.

        Raises:
            TargetLayerError: the layer has not run, as those that share another one's keys.
        """
        if self._seen.keys() != {"k_proj", "v_proj"}:
            raise TargetLayerError(
                "this layer of the target computes no keys and values: choose another kv_loss_layer"
            )
        return torch.stack([self._seen[name].unflatten(-1, self._shape) for name in ("k_proj", "v_proj")], dim=2)


def shape_of(model: Any, layer: int) -> tuple[int, int]:
    """Key heads of a decoder layer (counted from the end where negative), and their size.

    Raises:
        TargetLayerError: there is no such layer, or its keys are more than a projection.
    """
    target = unwrap(model)
    layers, text = target.get_decoder().layers, target.config.get_text_config(decoder=True)
    if not -len(layers) <= layer < len(layers):
        raise TargetLayerError(f"kv_loss_layer {layer}: the target has {len(layers)} layers")
    attention = getattr(layers[layer], "self_attn", None)
    if any(not isinstance(getattr(attention, name, None), nn.Module) for name in ("k_proj", "v_proj")):
        raise TargetLayerError(f"kv_loss_layer {layer}: this layer of the target has no k_proj and v_proj to read")
    if getattr(attention, "k_norm", None) is not None:
        raise TargetLayerError(f"kv_loss_layer {layer}: the target norms its keys, which no drafter's layer does")
    sizes = text.per_layer_config[layer]
    heads = sizes.num_attention_heads
    return getattr(sizes, "num_key_value_heads", None) or heads, getattr(sizes, "head_dim", None) or (
        text.hidden_size // heads
    )


@contextmanager
def reading_layer(model: Any, layer: int) -> Iterator[LayerRows]:
    """Record the forwards of `model` inside the `with` block. Raises TargetLayerError as `shape_of` does."""
    rows = LayerRows(*shape_of(model, layer))
    attention = unwrap(model).get_decoder().layers[layer].self_attn
    handles = [
        getattr(attention, name).register_forward_hook(lambda module, args, output, name=name: rows.see(name, output))
        for name in ("k_proj", "v_proj")
    ]
    try:
        yield rows
    finally:
        for handle in handles:
            handle.remove()
