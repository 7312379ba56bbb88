"""Masked attention over grouped heads on the CPU, without a copy of keys and values for every query head.

transformers repeats them wherever there is a mask, since CUDA's fused kernels take none with grouped heads. The CPU's
does, with the same numbers, and drafts are verified under a mask: every layer would copy the whole cache. Knows
nothing about drafting.
"""

import functools

import torch
from transformers.integrations import sdpa_attention

_MARK = "_mmspec_grouped_heads"


def for_grouped_heads(mask: torch.Tensor) -> torch.Tensor:
    """`mask`, marked: attention under this very tensor takes keys and values as they are. Derived tensors are not
    marked, and nothing happens before `teach_sdpa`."""
    if mask.device.type == "cpu":
        setattr(mask, _MARK, True)
    return mask


def additive_mask(hidden: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """`bool (B, n, columns)` to `(B, 1, n, columns)` with the minimum of `dtype` where True, marked."""
    mask = torch.zeros(hidden.shape, dtype=dtype, device=hidden.device)
    return for_grouped_heads(mask.masked_fill_(hidden, torch.finfo(dtype).min)[:, None])


def teach_sdpa() -> None:
    """Let transformers' sdpa attention know marked masks. Idempotent; other masks are treated as before, and so is
    what is compiled. Where a transformers has no such question, nothing is taught: this is about time alone."""
    stock = getattr(sdpa_attention, "use_gqa_in_sdpa", None)
    if stock is None or hasattr(stock, "__wrapped__"):
        return

    @functools.wraps(stock)
    def use_gqa_in_sdpa(attention_mask: torch.Tensor | None, key: torch.Tensor, value: torch.Tensor) -> bool:
        is_marked = not torch.compiler.is_compiling() and hasattr(attention_mask, _MARK)
        return is_marked or stock(attention_mask, key, value)

    sdpa_attention.use_gqa_in_sdpa = use_gqa_in_sdpa
