"""Words that a tokenizer reads as its own signals, such as `<|im_end|>`: a user's text must hold none of them.

Reads what the tokenizer declares; runs nothing. Words for pictures are in `placeholders.py`.
"""

import re
from typing import Any

# Added tokens that are not declared special and yet are signals, as `<think>` or `[TOOL_CALLS]`; others are only words
# or runs of spaces that were added to the vocabulary.
_LIKE_A_SIGNAL = re.compile(r"<\S+>|\[[A-Z_]+\]")


class ControlTokenError(ValueError):
    """A text holds a word that the tokenizer takes for a signal; the message names it."""


def find_control_token(processor: Any, text: str) -> str | None:
    """The first signal that the tokenizer reads in `text`, or None.

    Args:
        processor: the model's, or its tokenizer.
    """
    tokenizer = getattr(processor, "tokenizer", processor)
    added = tokenizer.added_tokens_decoder
    for token in tokenizer(text, add_special_tokens=False).input_ids:
        if token in added and (added[token].special or _LIKE_A_SIGNAL.fullmatch(added[token].content)):
            return added[token].content
    return None


def check_no_control_tokens(processor: Any, text: str) -> None:
    """Raise `ControlTokenError` where `find_control_token` finds one."""
    found = find_control_token(processor, text)
    if found is not None:
        raise ControlTokenError(
            f"the text contains {found!r}, which this model reads as a signal of the conversation: leave it out or "
            "spell it in another way."
        )
