"""Logits processors and stopping criteria for the rows of a batch: each sees its own row alone, as a batch of one.

Knows which of transformers' own remember something or hold something of every row; chooses no token.
"""

import copy
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from transformers import (
    EncoderNoRepeatNGramLogitsProcessor,
    EncoderRepetitionPenaltyLogitsProcessor,
    PrefixConstrainedLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SynthIDTextWatermarkLogitsProcessor,
    UnbatchedClassifierFreeGuidanceLogitsProcessor,
)

Members = TypeVar("Members", bound=list)


def for_each_row(members: Members, batch: int) -> list[Members]:
    """`members` (processors or criteria) for each of `batch` rows; the given ones themselves for a batch of one.

    Rows advance at different speeds, so whatever remembers earlier calls needs a memory for each row: row 0 takes the
    given object, the others take copies of it. transformers' own, of which most remember nothing, are shared.

    Raises:
        ValueError: one of them cannot be copied.
    """
    if batch == 1:
        return [members]
    return [type(members)(_for_row(member, row, batch) for member in members) for row in range(batch)]


def _for_row(member: Any, row: int, batch: int) -> Any:
    if type(member) in _HOLDS_ROWS:
        return _HOLDS_ROWS[type(member)](member, row, batch)
    remembers_nothing = type(member).__module__.startswith("transformers.generation")
    if row == 0 or (remembers_nothing and not isinstance(member, SynthIDTextWatermarkLogitsProcessor)):
        return member
    return _copied(member)


def _copied(member: Any) -> Any:
    models = {id(value): value for value in vars(member).values() if isinstance(value, torch.nn.Module)}
    try:
        return copy.deepcopy(member, models)  # models are shared
    except Exception as error:
        raise ValueError(
            f"{type(member).__name__} cannot be copied for the rows of a batch ({error}): give it a __deepcopy__ that "
            "returns self, if it remembers nothing between calls, or call `generate` once per prompt."
        ) from error


def _own_row(values: torch.Tensor, row: int, batch: int) -> torch.Tensor:
    """The row of `values (prompts, ...)`, where each prompt may stand for several returned sequences."""
    index = row * values.shape[0] // batch
    return values[index : index + 1]


def _grammar(member: Any, row: int, batch: int) -> Any:
    allowed = member._prefix_allowed_tokens_fn
    return PrefixConstrainedLogitsProcessor(lambda _, ids: allowed(row, ids), 1)


def _encoder_penalty(member: Any, row: int, batch: int) -> Any:
    own = copy.copy(member)
    own.encoder_input_ids = _own_row(member.encoder_input_ids, row, batch)
    return own


def _penalty(member: Any, row: int, batch: int) -> Any:
    own, padding = copy.copy(member), member.prompt_ignore_length
    own.prompt_ignore_length = _own_row(padding, row, batch) if isinstance(padding, torch.Tensor) else padding
    return own


def _ngrams(member: Any, row: int, batch: int) -> Any:
    own = copy.copy(member)
    own.batch_size, own.generated_ngrams = 1, [member.generated_ngrams[row * member.batch_size // batch]]
    return own


def _guidance(member: Any, row: int, batch: int) -> Any:
    own = copy.copy(member)
    own.unconditional_context = {
        name: _own_row(value, row, batch) if isinstance(value, torch.Tensor) else copy.deepcopy(value)
        for name, value in member.unconditional_context.items()
    }
    return own


_HOLDS_ROWS: dict[type, Callable[[Any, int, int], Any]] = {
    PrefixConstrainedLogitsProcessor: _grammar,
    EncoderRepetitionPenaltyLogitsProcessor: _encoder_penalty,
    RepetitionPenaltyLogitsProcessor: _penalty,
    EncoderNoRepeatNGramLogitsProcessor: _ngrams,
    UnbatchedClassifierFreeGuidanceLogitsProcessor: _guidance,
}
