"""Attention masks for verifying draft trees on top of a filled cache: additive, four-dimensional.

Additive because a boolean 4-D mask is silently wrong under eager attention; full and sliding windows alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedConfig
from transformers.cache_utils import get_layer_types_and_kwargs

from hf_mmspec.modeling.grouped_heads import additive_mask

from .tree_batch import TreeBatch


@dataclass(frozen=True)
class LayerWindows:
    """Which attention windows the target's layers have: no limit, one limit, or both kinds. `has_shared`: some layers
    have no rows of their own, they read those of a layer before them (Gemma 3n, Gemma 4)."""

    has_full: bool
    window: int | None
    has_shared: bool = False

    @classmethod
    def of(cls, config: PreTrainedConfig) -> "LayerWindows":
        """Read the layer kinds from the text decoder's `config`, as `DynamicCache(config=...)` does. The request's
        cache does not always know them: a user's `DynamicCache()` has no layers yet, and windows all the same.

        Raises:
            ValueError: a layer that cannot be rolled back to a tree path (linear attention, convolution...), or whose
                mask is neither full nor a window (chunked attention).
        """
        if getattr(config, "cross_attention_layers", None):
            raise ValueError(
                "speculative decoding does not know targets that attend to images in layers of their own (Mllama): "
                "generate without `assistant_model`."
            )
        kinds, options = get_layer_types_and_kwargs(config)
        if unknown := sorted(set(kinds) - {"full_attention", "sliding_attention", "dummy"}):
            raise ValueError(
                "speculative decoding needs layers with full or sliding attention, whose cached rows can be dropped, "
                f"but this target has {', '.join(unknown)}: generate without `assistant_model`."
            )
        windows = {option["sliding_window"] for option in options if "sliding_window" in option}
        if len(windows) > 1:
            raise ValueError(f"targets with several window sizes are not supported yet, this one has {windows}.")
        return cls("full_attention" in kinds, next(iter(windows), None), "dummy" in kinds)


def tree_attention_mask(
    trees: TreeBatch,
    lengths: Sequence[int],
    hidden_columns: torch.Tensor | None,
    windows: LayerWindows,
    dtype: torch.dtype,
    device: torch.device,
) -> torch.Tensor | dict[str, torch.Tensor]:
    """The mask `(B, 1, n, longest past + n)` under which each node sees its row's past, its ancestors and itself.

    Args:
        trees: of n nodes in each row.
        lengths: columns that the cache has of each row; its nodes stand in the n columns after them.
        hidden_columns: `bool (B, up to longest past)`, True at padding; None where there is none.
        dtype, device: the target's; masked places hold the minimum of the dtype.

    Returns:
        One mask, or `{"full_attention": ..., "sliding_attention": ...}` where the target's layers differ.
    """
    batch, nodes = trees.tokens.shape
    past = torch.tensor(lengths, device=device)[:, None]
    columns = torch.arange(max(lengths) + nodes, device=device)
    own = (past + torch.arange(nodes, device=device))[:, None].expand(batch, nodes, nodes)
    visible = (columns < past)[:, None].repeat(1, nodes, 1)
    if hidden_columns is not None:
        visible[..., : hidden_columns.shape[1]] &= ~hidden_columns.to(device)[:, None]
    visible.scatter_(2, own, trees.ancestors.to(device))
    if windows.window is None:
        return additive_mask(~visible, dtype)
    node_positions = past + trees.depths.to(device)
    positions = columns.expand(batch, -1).scatter(1, own[:, 0], node_positions)
    near = node_positions[..., None] - positions[:, None] < windows.window
    sliding = additive_mask(~(visible & near), dtype)
    if not windows.has_full:
        return sliding
    return {"full_attention": additive_mask(~visible, dtype), "sliding_attention": sliding}
