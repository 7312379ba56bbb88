"""The words that stand for pictures in a model's prompts: where a user's text holds one, a picture would bind to it.

Reads the names and ids that a processor, its tokenizer and the model's config declare; runs nothing.
"""

import re
from collections.abc import Mapping
from typing import Any

from tokenizers import AddedToken

_OF_PICTURES = re.compile(
    r"(\w+_)?(image|img|video|vision|boi|eoi)(_\w+)?_(token|tag)(_id|_index)?|(boi|eoi)_token(_id|_index)?"
)


class PlaceholderError(ValueError):
    """A text holds a word that the model takes for a picture; the message names it."""


def find_placeholder(processor: Any, model_config: Any, text: str) -> str | None:
    """The first placeholder of the model that is in `text`, e.g. `"<image>"` or `"<|vision_start|>"`, or None.

    Args:
        processor: the model's, or its tokenizer.
        model_config: the model's config, which may know more tokens, by their ids.
    """
    found = [literal for literal in placeholders(processor, model_config) if literal in text]
    return min(found, key=lambda literal: (text.index(literal), -len(literal)), default=None)


def check_text(processor: Any, model_config: Any, text: str) -> None:
    """Raise `PlaceholderError` where `find_placeholder` finds one."""
    literal = find_placeholder(processor, model_config, text)
    if literal is not None:
        raise PlaceholderError(
            f"the text contains {literal!r}, which this model reads as a place for a picture: leave it out or spell "
            "it in another way. Pictures that are given get their places by themselves."
        )


def placeholders(processor: Any, model_config: Any) -> set[str]:
    """All words that the model reads as a picture or a video, or as the border of one."""
    tokenizer = getattr(processor, "tokenizer", processor)
    words = {*_of_pictures(vars(processor)), *_of_pictures(tokenizer.special_tokens_map)}
    named = {str(word) for word in words if isinstance(word, str | AddedToken)}
    ids = {each for each in _of_pictures(model_config.to_dict()) if isinstance(each, int) and each >= 0}
    added = {id: word for word, id in tokenizer.get_added_vocab().items()}
    return ({added[each] for each in ids if each in added} | named) - {""}


def _of_pictures(declared: Mapping[str, Any]) -> list[Any]:
    return [value for name, value in declared.items() if _OF_PICTURES.fullmatch(name)]
