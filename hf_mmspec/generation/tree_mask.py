"""Attention masks for verifying a draft tree on top of a filled cache: additive, four-dimensional.

Additive because a boolean 4-D mask is silently wrong under eager attention; full and sliding windows alike.
"""

from dataclasses import dataclass

import torch
from transformers import PreTrainedConfig
from transformers.cache_utils import get_layer_types_and_kwargs

from hf_mmspec.modeling import DraftTree


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
    tree: DraftTree,
    past_length: int,
    hidden_columns: torch.Tensor | None,
    windows: LayerWindows,
    dtype: torch.dtype,
    device: torch.device,
) -> torch.Tensor | dict[str, torch.Tensor]:
    """The mask `(1, 1, n, past_length + n)` under which each node sees the past, its ancestors and itself.

    Args:
        hidden_columns: `bool (past_length,)`, True at padding; None where there is none.
        dtype, device: the target's; masked places hold the minimum of the dtype.

    Returns:
        One mask, or `{"full_attention": ..., "sliding_attention": ...}` where the target's layers differ.
    """
    nodes = len(tree)
    visible = torch.ones(nodes, past_length + nodes, dtype=torch.bool, device=device)
    visible[:, past_length:] = tree.ancestor_mask().to(device)
    if hidden_columns is not None:
        visible[:, :past_length] &= ~hidden_columns.to(device)
    if windows.window is None:
        return _additive(visible, dtype)
    positions = torch.cat([torch.arange(past_length, device=device), past_length + tree.depths.to(device)])
    near = positions[past_length:, None] - positions[None] < windows.window
    sliding = _additive(visible & near, dtype)
    if not windows.has_full:
        return sliding
    return {"full_attention": _additive(visible, dtype), "sliding_attention": sliding}


def _additive(visible: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    mask = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
    return mask.masked_fill_(~visible, torch.finfo(dtype).min)[None, None]
