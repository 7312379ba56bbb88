"""An answer's states under the grammar, token by token: what may follow, what must, and back again.

One for each request; the grammar's matcher is moved to any prefix by rolling back to what two prefixes share. Knows
token ids of an answer, neither prompts nor logits.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from .instruction import FIELDS
from .vocabulary import StringState, Vocabulary

# Fewer bytes than this complete any escape or character, so only so near to a limit tokens have to be chosen for it.
_LONGEST_REST = 3
# Tokens after the last of the last string: its quotation mark, the brace and the end.
TOKENS_TO_END = 3


@dataclass(frozen=True)
class TokenLimits:
    """The most tokens of the two free texts.

    Args:
        reasoning: of the reasoning.
        answer: of the whole answer; the rewritten prompt is closed in time.
    """

    reasoning: int
    answer: int


class Position(NamedTuple):
    """After some tokens: the string state, the tokens there were when the string was opened, the run that is forced
    from here (empty where there is a choice), and whether the answer has ended."""

    state: StringState
    opened: int
    run: tuple[int, ...]
    ended: bool = False


class AnswerStates:
    """The grammar's states along one answer, and the way back.

    Args:
        matcher: llguidance's, at its start.
        vocabulary: the one that it was made with.
        limits: see there.
    """

    def __init__(self, matcher: Any, vocabulary: Vocabulary, limits: TokenLimits):
        self._matcher, self._vocabulary, self._limits = matcher, vocabulary, limits
        self._tokens: list[int] = []
        self._last_mask: tuple[bytes, torch.Tensor] | None = None
        self._positions = [self._position(StringState(), opened=0, length=0)]

    def go_to(self, tokens: Sequence[int]) -> bool:
        """Move to the answer `tokens`; False where the grammar would have refused it, then at its longest part."""
        shared = _shared_length(self._tokens, tokens)
        self._go_back(shared)
        return all(self._advance(token) for token in tokens[shared:])

    def shared_with(self, tokens: Sequence[int]) -> int:
        """How many tokens of the present answer are those of `tokens`."""
        return _shared_length(self._tokens, tokens)

    def allowed(self) -> torch.Tensor:
        """`bool (vocabulary size,)`, not to be written to: which tokens may follow."""
        position = self._positions[-1]
        if position.ended:
            return self._vocabulary.only(self._vocabulary.eos_token_id)
        if position.run:
            return self._vocabulary.only(position.run[0])
        mask = self._grammar_mask()
        left = self._tokens_left(position.state, position.opened, len(self._tokens))
        if left is not None and left <= _LONGEST_REST:
            return self._vocabulary.closable_within(mask, position.state.pending, left - 1)
        return mask

    def forced(self) -> list[int]:
        """The longest run from here in which each token is the only one; moves to its end."""
        run: list[int] = []
        while not self._positions[-1].ended and (following := self._positions[-1].run):
            for token in following:
                self._advance(token)
            run += following
        return run

    def _grammar_mask(self) -> torch.Tensor:
        """The matcher's; within a text it is the same from token to token, and then the same tensor."""
        bits = self._matcher.compute_bitmask()
        if self._last_mask is None or self._last_mask[0] != bits:
            self._last_mask = bits, self._vocabulary.mask(bits)
        return self._last_mask[1]

    def _advance(self, token: int) -> bool:
        position = self._positions[-1]
        if position.ended:  # what follows the end is padding
            self._positions.append(position)
        elif position.run and token != position.run[0]:
            return False
        elif token == self._vocabulary.eos_token_id:
            if not position.run:
                return False
            self._positions.append(Position(position.state, position.opened, (), ended=True))
        elif self._matcher.try_consume_tokens([token]) == 1:
            self._positions.append(self._next(position, token))
        else:
            return False
        self._tokens.append(token)
        return True

    def _next(self, position: Position, token: int) -> Position:
        state = position.state.after(self._vocabulary.bytes_of([token]))
        opened = position.opened if state.quotes == position.state.quotes else len(self._tokens) + 1
        if len(position.run) > 1:
            return Position(state, opened, position.run[1:])
        return self._position(state, opened, len(self._tokens) + 1)

    def _position(self, state: StringState, opened: int, length: int) -> Position:
        """The position after `length` tokens, to which the matcher has been moved."""
        return Position(state, opened, self._forced_at(state, opened, length))

    def _forced_at(self, state: StringState, opened: int, length: int) -> tuple[int, ...]:
        if self._matcher.is_stopped():
            return (self._vocabulary.eos_token_id,)
        left = self._tokens_left(state, opened, length)
        if left is not None and left <= 0:
            return (self._closing_token(),)
        forced = self._matcher.compute_ff_bytes()
        return self._vocabulary.ids_of(forced) if forced else ()

    def _tokens_left(self, state: StringState, opened: int, length: int) -> int | None:
        """How many tokens the open free text may still take after `length` tokens; None outside of free texts."""
        # of the quotation marks of a field two are its name's, the third opens its value
        field, marks = divmod(state.quotes, 4)
        if marks != 3:
            return None
        if FIELDS[field] == "reasoning":
            return opened + self._limits.reasoning - length
        if FIELDS[field] == "rewritten_prompt":
            return self._limits.answer - TOKENS_TO_END - length
        return None

    def _closing_token(self) -> int:
        """The longest token that closes the open string and goes on as the grammar wants."""
        closing = self._vocabulary.closing
        return int(closing[self._grammar_mask()[closing]][0])

    def _go_back(self, length: int) -> None:
        dropped = [at for at in range(length, len(self._tokens)) if not self._positions[at + 1].ended]
        if dropped and not self._matcher.rollback(len(dropped)):
            raise RuntimeError(f"the grammar's matcher could not go back: {self._matcher.get_error()}")
        del self._tokens[length:], self._positions[length + 1 :]


def _shared_length(mine: Sequence[int], theirs: Sequence[int]) -> int:
    return next(
        (at for at, (a, b) in enumerate(zip(mine, theirs, strict=False)) if a != b), min(len(mine), len(theirs))
    )
