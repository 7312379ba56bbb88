"""What a tokenizer's tokens are in bytes, and where they leave a JSON string: open, in an escape, inside a character.

Knows nothing about grammars or budgets.
"""

from collections.abc import Iterable
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch

_QUOTE, _BACKSLASH = 0x22, 0x5C
_ESCAPE = 4  # `pending` after a backslash; 1 to 3 are bytes of a character that are still to come


class StringState(NamedTuple):
    """Where a JSON text stands after some bytes.

    Args:
        quotes: quotation marks so far that open or close a string.
        pending: what is unfinished: 0 nothing, 1 to 3 the bytes that a UTF-8 character lacks, 4 an escape.
    """

    quotes: int = 0
    pending: int = 0

    def after(self, data: bytes) -> "StringState":
        """The state after `data`. Escapes are a backslash and one character, as our grammar writes them."""
        quotes, pending = self
        for byte in data:
            if pending == _ESCAPE:
                pending = 0
            elif pending:
                pending -= 1
            elif byte == _BACKSLASH:
                pending = _ESCAPE
            elif byte == _QUOTE:
                quotes += 1
            else:
                pending = (byte >= 0xC0) + (byte >= 0xE0) + (byte >= 0xF0)
        return StringState(quotes, pending)

    @property
    def in_string(self) -> bool:
        """Whether a string is open."""
        return self.quotes % 2 == 1

    @property
    def bytes_to_close(self) -> int:
        """How many bytes, of a token each at worst, must come before the string can be closed."""
        return 1 if self.pending == _ESCAPE else self.pending


class Vocabulary:
    """A tokenizer's tokens as llguidance knows them. Making it takes about a second; requests share it.

    Args:
        tokenizer: a fast tokenizer of transformers.
        size: width of the logits, which may be padded.
        eos_token_id: what ends an answer.

    Raises:
        ValueError: the tokenizer is not a fast one.
    """

    def __init__(self, tokenizer: Any, size: int, eos_token_id: int):
        from llguidance import LLTokenizer
        from llguidance.hf import from_tokenizer

        self.eos_token_id = eos_token_id
        self.size = max(size, len(tokenizer))
        self.tokens = from_tokenizer(
            tokenizer, n_vocab=self.size, eos_token=eos_token_id, slices=LLTokenizer.json_slices()
        )

    def bytes_of(self, ids: Iterable[int]) -> bytes:
        """The bytes of some tokens."""
        return self.tokens.decode_bytes(list(ids))

    def ids_of(self, data: bytes) -> tuple[int, ...]:
        """Bytes as the tokenizer would write them by themselves."""
        return tuple(self.tokens.tokenize_bytes(data))

    def mask(self, bits: bytes) -> torch.Tensor:
        """`bool (size,)` from one bit per token."""
        flat = np.unpackbits(np.frombuffer(bits, dtype=np.uint8), count=self.size, bitorder="little")
        return torch.from_numpy(flat.view(np.bool_))

    def only(self, token: int) -> torch.Tensor:
        """The mask that leaves one token."""
        mask = torch.zeros(self.size, dtype=torch.bool)
        mask[token] = True
        return mask

    @cached_property
    def closing(self) -> torch.Tensor:
        """Ids of tokens that begin with a quotation mark, the longest first."""
        sizes = {token: len(data) for token, data in enumerate(self._bytes) if data[:1] == b'"'}
        return torch.tensor(sorted(sizes, key=lambda token: (-sizes[token], token)))

    @cached_property
    def _bytes(self) -> list[bytes]:
        return [self.tokens.decode_bytes([token]) for token in range(self.size)]

    @cached_property
    def _to_close(self) -> torch.Tensor:
        """`int8 (size,)`: `_bytes_to_close` of every token in a string where nothing is pending."""
        return torch.tensor([_bytes_to_close(0, data) for data in self._bytes], dtype=torch.int8)

    def closable_within(self, mask: torch.Tensor, pending: int, count: int) -> torch.Tensor:
        """Of the tokens of `mask`, which come in a string with `pending`, those after which it can be closed within
        `count` more tokens."""
        if pending == 0:
            return mask & (self._to_close <= count)
        closable = mask.clone()
        for token in mask.nonzero().flatten().tolist():
            closable[token] = _bytes_to_close(pending, self._bytes[token]) <= count
        return closable


def _bytes_to_close(pending: int, data: bytes) -> int:
    state = StringState(1, pending).after(data)
    return state.bytes_to_close if state.in_string else 0
