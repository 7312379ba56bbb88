"""Rows of transformers' static cache layers: read in order, and written in place, so that addresses stay.

Knows the layout of `StaticLayer` and `StaticSlidingWindowLayer` and nothing about requests.
"""

import torch
from transformers.cache_utils import StaticLayer, StaticSlidingWindowLayer


def length_of(layer: StaticLayer) -> int:
    """How many rows the layer has seen; a window may have forgotten the first of them."""
    if isinstance(layer, StaticSlidingWindowLayer):
        return layer.cumulative_length_int
    return int(layer.get_seq_length())


def stored_rows(layer: StaticLayer) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values `(batch, heads, n, head_dim)` of the last n rows, n at most the layer's size."""
    rows = min(length_of(layer), layer.max_cache_len)
    return layer.keys[:, :, :rows], layer.values[:, :, :rows]


def store_rows(layer: StaticLayer, keys: torch.Tensor, values: torch.Tensor) -> None:
    """Make the layer what it would be had it seen these rows `(batch, heads, length, head_dim)`, from the first on."""
    if not layer.is_initialized:
        layer.lazy_initialization(keys, values)
    length = keys.shape[-2]
    rows = min(length, layer.max_cache_len)
    layer.keys[:, :, :rows] = keys[:, :, length - rows :]
    layer.values[:, :, :rows] = values[:, :, length - rows :]
    layer.cumulative_length.fill_(length)
    if isinstance(layer, StaticSlidingWindowLayer):
        layer.cumulative_length_int = length


def room_of(layers: list) -> int | None:
    """Rows that fit into static layers; None where all are windows, which forget. Layers that read another one's rows
    have none of their own."""
    own = (layer for layer in layers if isinstance(layer, StaticLayer))
    return min((layer.max_cache_len for layer in own if not layer.is_sliding), default=None)
