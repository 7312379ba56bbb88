"""What a drafter borrows from a target, and the checks that the two fit: found through wrappers, before any work.

Stores nothing on either model; knows no drafter family.
"""

from typing import Any

import torch
from torch import nn
from transformers.utils import logging

from .configuration_drafter import DrafterConfig
from .draft_state import BorrowedParts
from .packed_weights import dtype_into, input_device, readable_weight, rows_of

logger = logging.get_logger(__name__)

# Rows whose norm and projection make up a fingerprint: spread, fixed, and below any padding.
_PROBE_IDS = (1, 11, 101, 211, 503, 1009, 2003, 4001, 8009, 16001, 24001, 30011)
_HEAD_PATHS = ("lm_head", "language_model.lm_head", "model.lm_head", "model.language_model.lm_head")


class DrafterMismatchError(ValueError):
    """The drafter was made for another target; the message names cause and fix."""


def unwrap(target: Any) -> Any:
    """The model inside `torch.compile`, PEFT and data-parallel wrappers (which share their parameters with it)."""
    while True:
        if hasattr(target, "_orig_mod"):
            target = target._orig_mod
        elif hasattr(target, "peft_config") and hasattr(target, "get_base_model"):
            target = target.get_base_model()
        elif isinstance(target, nn.parallel.DistributedDataParallel | nn.DataParallel):
            target = target.module
        else:
            return target


def find_head(target: Any) -> nn.Module:
    """The target's language-model head: `get_output_embeddings()` first, then the places where models keep it.

    Raises:
        DrafterMismatchError: there is none; names the classes that were searched.
    """
    model = unwrap(target)
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    for path in _HEAD_PATHS:
        head = _attribute(model, path) if head is None else head
    if head is None:
        tried = " -> ".join(dict.fromkeys([type(target).__name__, type(model).__name__]))
        raise DrafterMismatchError(
            f"the target has no language-model head (searched {tried}: get_output_embeddings(), "
            f"{', '.join(_HEAD_PATHS)}). Load it with its generation class, e.g. AutoModelForImageTextToText."
        )
    return head


def borrow(config: DrafterConfig, target: Any) -> BorrowedParts:
    """Check that a drafter with this config fits the target, and take its embeddings and head.

    Raises:
        DrafterMismatchError: another family, hidden size or vocabulary, or no language-model head.
    """
    head, model = find_head(target), unwrap(target)
    text = model.config.get_text_config(decoder=True)
    embeddings = model.get_input_embeddings()
    check_family(config, model.config.model_type)
    check_width(config, text.hidden_size)
    vocab_size = common_vocabulary(config, text.vocab_size)
    _warn_about_other_weights(config, fingerprint(embeddings, head))
    head_size = rows_of(head, text.vocab_size)
    return BorrowedParts(embeddings, head, vocab_size, head_size, head_dtype=dtype_into(head, model))


def fingerprint(embeddings: nn.Module, head: nn.Module) -> dict[str, list[float]]:
    """Norm and projection of a few fixed rows of embeddings and head: the same in any dtype, other after a rotation,
    a rescaling or another training. A head whose weights are packed (quantized) or offloaded is left out."""
    ids = torch.tensor(probe_ids(rows_of(embeddings, 0)), device=input_device(next(embeddings.parameters())))
    with torch.no_grad():
        prints = {"embed_tokens": describe_rows(embeddings(ids))}
        weight = readable_weight(head)
        if weight is not None:
            prints["lm_head"] = describe_rows(weight[ids.to(weight.device)])
    return prints


def probe_ids(rows: int) -> list[int]:
    """The rows of a table of `rows` tokens that a fingerprint looks at."""
    return [i for i in _PROBE_IDS if i < rows]


def describe_rows(rows: torch.Tensor) -> list[float]:
    """One part's fingerprint, from its rows `probe_ids`, `(n, hidden_size)`."""
    rows = rows.float().cpu()
    direction = nn.functional.normalize(torch.cos(torch.arange(rows.shape[-1], dtype=torch.float32)), dim=0)
    return [round(x, 5) for x in torch.cat([rows.norm(dim=-1), rows @ direction]).tolist()]


def _warn_about_other_weights(config: DrafterConfig, found: dict[str, list[float]]) -> None:
    for part, expected in (config.target_fingerprint or {}).items():
        if part in found and not similar(expected, found[part]):
            logger.warning_once(
                f"The target's {part} differs from the one this drafter was trained with (fine-tuned, rotated or "
                "newly initialised weights?). The output stays exact, but few drafts may be accepted: check how the "
                "target was loaded, or train a drafter for it."
            )


def similar(expected: list[float], found: list[float]) -> bool:
    """Whether two parts' fingerprints are of the same weights, in whatever dtypes."""
    if len(expected) != len(found):
        return False
    a, b = torch.tensor(expected), torch.tensor(found)
    norms = a[: len(a) // 2].repeat(2)
    return bool(((a - b).abs() <= 0.02 * norms + 1e-4).all())


def check_family(config: DrafterConfig, model_type: str) -> None:
    """Raises DrafterMismatchError where the drafter was made for targets of another `model_type`."""
    if config.target_model_type is not None and config.target_model_type != model_type:
        raise DrafterMismatchError(
            f'the drafter was made for targets of type "{config.target_model_type}" but this one is "{model_type}". '
            "Use the drafter of this target, or train one with `mmspec train`."
        )


def check_width(config: DrafterConfig, hidden_size: int) -> None:
    """Raises DrafterMismatchError where the drafter reads states of another width than the target's `hidden_size`."""
    if config.target_width != hidden_size:
        raise DrafterMismatchError(
            f"the drafter is for hidden size {config.target_width} but the target has {hidden_size}: it was made "
            "for another target. Use the drafter of this target, or train one with `mmspec train`."
        )


def common_vocabulary(config: DrafterConfig, target_size: int) -> int:
    """Number of real tokens. Padded sizes may differ where the number of real ones is known.

    Raises:
        DrafterMismatchError: the drafter speaks other tokens than a target whose vocabulary has `target_size`.
    """
    real = config.real_vocab_size
    if real is None and target_size == config.vocab_size:
        return target_size
    if real is None or real > target_size:
        raise DrafterMismatchError(
            f"the drafter's vocabulary has {real or config.vocab_size} tokens but the target's {target_size}: it was "
            "made for another tokenizer. If only the padding differs, set `real_vocab_size` in the drafter's config "
            "to the number of real tokens (len(tokenizer))."
        )
    return real


def _attribute(model: Any, path: str) -> nn.Module | None:
    for name in path.split("."):
        model = getattr(model, name, None)
    return model


def _largest(size: int | list[int]) -> int:
    """One size, also where layers have one each (Gemma 3n)."""
    return size if isinstance(size, int) else max(size)


def describe_target(target: Any) -> dict[str, Any]:
    """Config fields of a drafter that fits `target`: sizes of its text decoder, family and fingerprint. M-RoPE targets
    give plain rotary embeddings with their theta, as all published drafters use them."""
    head, model = find_head(target), unwrap(target)
    text = model.config.get_text_config(decoder=True)
    layer = text.per_layer_config[-1]  # heads may differ from layer to layer (Gemma 4)
    rope = dict(getattr(text, "rope_parameters", None) or {})
    rope.pop("mrope_section", None)
    return {
        "vocab_size": text.vocab_size,
        "hidden_size": text.hidden_size,
        "intermediate_size": _largest(getattr(text, "intermediate_size", None) or 4 * text.hidden_size),
        "num_attention_heads": layer.num_attention_heads,
        "num_key_value_heads": getattr(layer, "num_key_value_heads", None) or layer.num_attention_heads,
        "head_dim": getattr(layer, "head_dim", None) or 0,
        "rms_norm_eps": getattr(text, "rms_norm_eps", 1e-6),
        "max_position_embeddings": text.max_position_embeddings,
        "rope_parameters": rope if "rope_theta" in rope else None,
        "target_model_type": model.config.model_type,
        "target_fingerprint": fingerprint(model.get_input_embeddings(), head),
        "image_token_id": getattr(model.config, "image_token_id", None),
    }
