"""The grammar of a rewrite and the logits processor that enforces it, one token at a time.

The grammar is llguidance's, made from the object's JSON schema; thinking budget and length limit are ours
(`answer_states.py`). Knows neither models nor prompts.
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
from transformers import LogitsProcessor

from .answer_states import TOKENS_TO_END, AnswerStates, TokenLimits
from .instruction import ASPECT_RATIOS, TASKS, rewrite_json
from .rewrite import json_schema
from .vocabulary import Vocabulary

# One line, a space after each comma and colon; of escapes those that json.dumps writes for what prompts hold.
_FORM = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
    "json_allowed_escapes": '"\\n',
}
_SHORTEST_PROMPT = 8  # tokens


def least_new_tokens(thinking: int) -> int:
    """The smallest length limit under which every answer is whole, whatever the tokenizer: a token for each byte of
    names and choices."""
    fixed = rewrite_json("", max(TASKS, key=len), max(ASPECT_RATIOS, key=len), "")
    return len(fixed) + thinking + _SHORTEST_PROMPT + TOKENS_TO_END


def check_limits(thinking: int, max_new_tokens: int) -> None:
    """Raises ValueError where an answer of these limits may not be whole."""
    if thinking < 0:
        raise ValueError(f"thinking must be at least 0 tokens, got {thinking}")
    least = least_new_tokens(thinking)
    if max_new_tokens < least:
        raise ValueError(
            f"max_new_tokens={max_new_tokens} may not hold a whole rewrite with thinking={thinking}: "
            f"give at least {least}, or less thinking."
        )


class RewriteGrammar:
    """The grammar for one vocabulary and thinking budget; requests get a processor each.

    Args:
        vocabulary: of the target.
        thinking: the most tokens of reasoning.
        max_new_tokens: the most tokens of an answer, its end included.

    Raises:
        ValueError: a number is out of range.
    """

    def __init__(self, vocabulary: Vocabulary, thinking: int, max_new_tokens: int):
        from llguidance import LLMatcher

        check_limits(thinking, max_new_tokens)
        self.vocabulary, self.limits = vocabulary, TokenLimits(thinking, max_new_tokens)
        grammar = LLMatcher.grammar_from_json_schema(json_schema(thinking), overrides=cast(Any, _FORM))
        self._matcher = LLMatcher(vocabulary.tokens, grammar, log_level=0)
        if self._matcher.is_error():
            raise RuntimeError(f"llguidance refuses the grammar of a rewrite: {self._matcher.get_error()}")

    def states(self) -> AnswerStates:
        """A new answer's states."""
        return AnswerStates(self._matcher.deep_copy(), self.vocabulary, self.limits)

    def processor(self, prompt_length: int) -> "GrammarProcessor":
        """For one call of `generate` whose prompts have `prompt_length` tokens."""
        return GrammarProcessor(self, prompt_length)

    def text(self, ids: Sequence[int]) -> str:
        """An answer, or its beginning, as text; an unfinished character at its end is left out."""
        data = self.vocabulary.bytes_of(each for each in ids if each != self.vocabulary.eos_token_id)
        return data.decode("utf-8", errors="ignore")


class GrammarProcessor(LogitsProcessor):
    """Leaves what the grammar and the limits allow, and tells drafters of it (`generation.DraftConstraint`).

    The grammar has the last word: where other processors left nothing of what it allows, that is equally likely.
    """

    def __init__(self, grammar: RewriteGrammar, prompt_length: int):
        self._grammar, self._prompt_length = grammar, prompt_length
        self._rows: list[AnswerStates] = []

    def __deepcopy__(self, memo: dict[int, Any]) -> "GrammarProcessor":
        """For another row of a batch: the same grammar, whose answers are not shared."""
        return self._grammar.processor(self._prompt_length)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        masks = [self.allowed_tokens(ids) for ids in input_ids.tolist()]
        allowed = torch.stack(masks)[:, : scores.shape[1]].to(scores.device)
        # assisted decoding also asks beyond a draft that was refused, and uses none of what it is told there
        allowed |= ~allowed.any(dim=1, keepdim=True)
        masked = scores.masked_fill(~allowed, -torch.inf)
        hopeless = masked.isneginf().all(dim=1, keepdim=True)
        return masked.masked_fill(hopeless & allowed, 0.0)

    def allowed_tokens(self, ids: Sequence[int]) -> torch.Tensor:
        """See `DraftConstraint`."""
        states, reached = self._at(ids)
        return states.allowed() if reached else torch.zeros(self._grammar.vocabulary.size, dtype=torch.bool)

    def forced_tokens(self, ids: Sequence[int]) -> list[int]:
        """See `DraftConstraint`."""
        states, reached = self._at(ids)
        return states.forced() if reached else []

    def _at(self, ids: Sequence[int]) -> tuple[AnswerStates, bool]:
        """The states of the answer that `ids` end with, at its end, and whether the grammar takes it. Answers of a
        batch have states each: one whose answer is the longest beginning of this one is moved on."""
        answer = ids[self._prompt_length :]
        states = max(self._rows, key=lambda each: each.shared_with(answer), default=None)
        if states is None or (len(answer) > 0 and states.shared_with(answer) == 0):
            states = self._grammar.states()
            self._rows.append(states)
        return states, states.go_to(answer)
