"""A request's rows as a drafter sees them: which of them are still drafted for, one alone or several side by side.

Knows neither the target nor acceptance.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from hf_mmspec.modeling import BorrowedParts, DraftBudget, Drafter, DraftTree, TargetPrompt
from hf_mmspec.modeling.guided_growth import Guidance

from .conversation_cache import ConversationCache


class Drafting:
    """The drafter's state for all rows of a request that have not ended.

    Args:
        prompts: one for each row.
        tokens: `int64 (1, 1)` each, the first token that the target emitted after it.
        conversation: where the drafter goes on from what it has read; of one row.
    """

    def __init__(
        self,
        drafter: Drafter,
        prompts: Sequence[TargetPrompt],
        tokens: Sequence[torch.Tensor],
        borrowed: BorrowedParts,
        conversation: ConversationCache | None = None,
    ):
        read = drafter.prefill if conversation is None else partial(conversation.read, drafter)
        states = [read(*row, borrowed) for row in zip(prompts, tokens, strict=True)]
        self._drafter = drafter
        self._is_alone = len(states) == 1
        self._state = states[0] if self._is_alone else drafter.join(states)

    @property
    def takes_guidance(self) -> bool:
        """Whether `propose` takes `guidances`."""
        return self._drafter.takes_guidance

    def propose(
        self,
        budgets: Sequence[DraftBudget],
        temperature: float | None,
        guidances: Sequence[Guidance | None] | None = None,
    ) -> list[DraftTree]:
        """The next tree of each row."""
        told: dict[str, Any]
        if self._is_alone:
            told = {} if guidances is None else {"guidance": guidances[0]}
            return [self._drafter.propose(self._state, budgets[0], temperature, **told)]
        told = {} if guidances is None else {"guidances": guidances}
        return self._drafter.propose_rows(self._state, budgets, temperature, **told)

    def extend(self, features: Sequence[torch.Tensor], tokens: Sequence[torch.Tensor]) -> None:
        """Take in each row's accepted features `(1, m, F)` and the tokens `(1, m)` emitted after them."""
        if self._is_alone:
            self._drafter.extend(self._state, features[0], tokens[0])
        else:
            self._drafter.extend_rows(self._state, features, tokens)

    def select(self, rows: Sequence[int]) -> None:
        """Go on with the given rows only, numbered anew."""
        self._state = self._drafter.select(self._state, rows)
