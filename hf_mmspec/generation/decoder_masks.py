"""Hands the masks of a tree to the decoder itself, where the model around it would not pass them on.

Knows one fact about families: whose wrapper takes a single mask. Builds no mask.
"""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn
from transformers import PreTrainedConfig

# These build their decoder's masks from the one they get, which a dictionary of masks is not.
_TAKES_ONE_MASK = ("paligemma",)

Masks = torch.Tensor | Mapping[str, torch.Tensor]


def takes_one_mask(config: PreTrainedConfig) -> bool:
    """Whether a model of this config has no place for masks of several kinds."""
    return config.model_type in _TAKES_ONE_MASK


def mask_for_wrapper(masks: Masks | None, config: PreTrainedConfig) -> Masks | None:
    """What the whole model gets as `attention_mask`: `masks`, or one of them where it takes no more."""
    if isinstance(masks, Mapping) and takes_one_mask(config):
        return masks["full_attention"]
    return masks


@contextmanager
def masks_for_decoder(decoder: nn.Module, masks: Masks | None, config: PreTrainedConfig) -> Iterator[None]:
    """Inside the `with` block `decoder` gets `masks` even where the model around it passes on something else: in the
    thread that asks, as another one may run the same decoder."""
    if mask_for_wrapper(masks, config) is masks:
        yield
        return

    owner = threading.get_ident()

    def replace(module, args, kwargs):
        return (args, {**kwargs, "attention_mask": masks}) if threading.get_ident() == owner else None

    hook = decoder.register_forward_pre_hook(replace, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()
