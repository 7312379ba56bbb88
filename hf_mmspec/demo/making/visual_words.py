"""The embedding that a perfect visual token has: the word it shows plus a little of its details.

Its border: targets of stage 1 and inputs of stage 2. Because a visual token looks like SmolLM2's own embedding of a
word, the language model needs few samples to use it.
"""

import torch
from torch.nn.functional import normalize

from ..world.words import PATCH_WORDS
from .patches import DETAIL_WORDS

DETAIL_WEIGHT = 0.5


class VisualWords:
    """Embeddings of the words and details, unit length, and the usual length of SmolLM2's embeddings."""

    def __init__(self, tokenizer, embeddings: torch.Tensor):
        """`embeddings` [V, D] is the language model's input embedding matrix."""
        self.norm = embeddings.float().norm(dim=-1).mean().item()
        self.words = self._rows(tokenizer, embeddings, PATCH_WORDS)
        self.details = self._rows(tokenizer, embeddings, DETAIL_WORDS)

    @staticmethod
    def _rows(tokenizer, embeddings: torch.Tensor, words: tuple[str, ...]) -> torch.Tensor:
        ids = [tokenizer.encode(f" {word}", add_special_tokens=False) for word in words]
        assert all(len(i) == 1 for i in ids), "every visual word is one token"
        return normalize(embeddings[[i[0] for i in ids]].float(), dim=-1)

    def targets(self, words: torch.Tensor, details: torch.Tensor) -> torch.Tensor:
        """Word ids [..., T] and detail ids [..., T, 2] (-1: none) to embeddings [..., T, D]."""
        none = torch.zeros(1, self.details.shape[1], dtype=self.details.dtype)
        extra = torch.cat([self.details, none])[details].sum(-2)
        return self.norm * (self.words[words] + DETAIL_WEIGHT * extra)
