"""Which samples cannot be learned from, and why: one short reason each, to be counted and never fatal.

Judges prompts before they are answered and answers afterwards; changes neither.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hf_mmspec.data import Conversation, PictureError
from hf_mmspec.data.placeholders import find_placeholder
from hf_mmspec.generation.visual_spans import visual_token_ids
from hf_mmspec.modeling.binding import unwrap


class TooManySkippedError(ValueError):
    """More samples were left out than the caller puts up with; the message has the counts."""


@dataclass(frozen=True)
class Screening:
    """What is asked of a sample.

    Args:
        processor, model: the target.
        max_length: most tokens of prompt and answer together.
    """

    processor: Any
    model: Any
    max_length: int

    def of_prompt(self, conversation: Conversation) -> str | None:
        """Why this prompt cannot be asked; None if it can."""
        if not conversation.text.strip() and not conversation.pictures:
            return "empty prompt"
        if find_placeholder(self.processor, unwrap(self.model).config, conversation.text) is not None:
            return "a placeholder's own text in the prompt"
        try:
            conversation.opened()
        except PictureError:
            return "broken picture"
        return None

    def of_length(self, prompt_length: int) -> str | None:
        """Why a prompt of so many tokens cannot be answered."""
        return "prompt too long" if prompt_length + 2 > self.max_length else None

    def of_answer(self, prompt_length: int, answer: Sequence[int], ends: set[int]) -> str | None:
        """Why this answer teaches nothing; None if it does. Two tokens are the least: the first comes from the prefill
        and is never drafted."""
        if len([token for token in answer if token not in ends]) == 0 or len(answer) < 2:
            return "empty answer"
        if prompt_length + len(answer) > self.max_length:
            return "answer too long"
        if set(answer) & set(visual_token_ids(unwrap(self.model).config).values()):
            return "an image token in the answer"
        return None


def insist_on_few(skipped: int, seen: int, most: float, counts: str, least: int = 20) -> None:
    """Raises TooManySkippedError where more than the share `most` of at least `least` samples was left out."""
    if seen >= least and skipped > most * seen:
        raise TooManySkippedError(
            f"{skipped} of {seen} samples cannot be used ({counts}); at most {most:.0%} were to be put up with. Mend "
            "the data, or allow more with --max-skipped"
        )
