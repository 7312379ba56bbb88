"""A drafter and transformers' own ways of drafting: a request has one of them, and no argument of the other.

Knows the words that requests use for them, and nothing of how either drafts.
"""

from collections.abc import Mapping
from typing import Any

from transformers import GenerationConfig

from .budget import BUDGET_FIELDS

# arguments of `generate`, or fields of a generation_config, that ask for something else than `assistant_model`
_OTHER_WAYS = {
    "use_mtp": "drafts with the target's own MTP layers",
    "prompt_lookup_num_tokens": "drafts from the prompt",
    "assistant_early_exit": "drafts with the target's lower layers",
    "speculation_type": "is for assistants of transformers",
    "assistant_ensemble_weight": "changes the answer, which a drafter never does",
}


def check_no_other_way(generation_config: GenerationConfig, arguments: Mapping[str, Any] | None = None) -> None:
    """For a request with a drafter of ours.

    Args:
        arguments: what `generate` keeps apart from the config (`assistant_tokenizer`).

    Raises:
        ValueError: it asks for another way of drafting too; stock `generate` would pick one and not say which.
    """
    for name, what in _OTHER_WAYS.items():
        value = getattr(generation_config, name, None)
        if value is not None and value is not False:
            raise ValueError(
                f"{name}={value!r} {what} and cannot be combined with a drafter: leave out one of the two (or pass "
                f"{name}=None, where it comes from the model's generation_config)."
            )
    if (arguments or {}).get("assistant_tokenizer") is not None:
        raise ValueError("a drafter speaks its target's tokens: leave out `assistant_tokenizer`.")


def check_no_budget(generation_config: GenerationConfig) -> None:
    """For a request with another assistant, or with none but prompt lookup and the like.

    Raises:
        ValueError: it gives a draft budget, which nobody would read.
    """
    given = [name for name in BUDGET_FIELDS if getattr(generation_config, name, None) is not None]
    if given:
        raise ValueError(
            f"{', '.join(given)}: only the drafters of hf_mmspec read that. transformers' own assistants take "
            "num_assistant_tokens, in the assistant's generation_config."
        )
