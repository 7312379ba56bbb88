"""A request's rows as a drafter sees them: which of them are still drafted for, one alone or several side by side.

It reads what the target said when it next drafts, all at once. While nothing is drafted, nothing is read: prompts and
features of accepted tokens wait (a few kilobytes each). Knows neither the target nor costs nor acceptance.
"""

from collections.abc import Sequence
from typing import Any

import torch

from hf_mmspec.modeling import BorrowedParts, DraftBudget, Drafter, DraftTree, TargetPrompt
from hf_mmspec.modeling.guided_growth import Guidance

from .conversation_cache import ConversationCache
from .few_rows import fast_for_few_rows

# Accepted tokens of a row that may wait; then they are read, at a fraction of what the target took to compute them.
_MOST_WAITING = 4096


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
        self._given, self._borrowed, self._conversation = drafter, borrowed, conversation
        self._drafter = fast_for_few_rows(drafter)
        self._is_alone = len(prompts) == 1
        self._state: Any = None
        self._unread = list(zip(prompts, tokens, strict=True))
        # by row, then by round
        self._features: list[list[torch.Tensor]] = [[] for _ in prompts]
        self._tokens: list[list[torch.Tensor]] = [[] for _ in prompts]

    @property
    def takes_guidance(self) -> bool:
        """Whether `propose` takes `guidances`."""
        return self._drafter.takes_guidance

    @property
    def has_read_prompts(self) -> bool:
        """False until it drafts for the first time."""
        return not self._unread

    @property
    def waiting(self) -> int:
        """Accepted tokens that it has not read, of the row that has most of them."""
        return max(sum(tokens.shape[1] for tokens in own) for own in self._tokens)

    def read_prompts(self) -> None:
        """Once; later calls do nothing."""
        if not self._unread:
            return
        states = [self._read(*row) for row in self._unread]
        self._state = states[0] if self._is_alone else self._drafter.join(states)
        self._unread = []

    def _read(self, prompt: TargetPrompt, token: torch.Tensor) -> Any:
        if self._conversation is None:
            return self._drafter.prefill(prompt, token, self._borrowed)
        return self._conversation.read(self._given, prompt, token, self._borrowed)

    def follow(self, features: Sequence[torch.Tensor], tokens: Sequence[torch.Tensor]) -> None:
        """Take note of each row's accepted features `(1, m, F)` and the tokens `(1, m)` emitted after them."""
        for waiting, new in ((self._features, features), (self._tokens, tokens)):
            for own, each in zip(waiting, new, strict=True):
                own.append(each)
        if self.waiting > _MOST_WAITING:
            self.catch_up()

    def catch_up(self) -> None:
        """Read all that waits."""
        self.read_prompts()
        if not self._tokens[0]:
            return
        features, tokens = ([torch.cat(own, dim=1) for own in each] for each in (self._features, self._tokens))
        if self._is_alone:
            self._drafter.extend(self._state, features[0], tokens[0])
        else:
            self._drafter.extend_rows(self._state, features, tokens)
        for own in (*self._features, *self._tokens):
            own.clear()

    def propose(
        self,
        budgets: Sequence[DraftBudget],
        temperature: float | None,
        guidances: Sequence[Guidance | None] | None = None,
    ) -> list[DraftTree]:
        """Read what waits, then draft the next tree of each row."""
        self.catch_up()
        told: dict[str, Any]
        if self._is_alone:
            told = {} if guidances is None else {"guidance": guidances[0]}
            return [self._drafter.propose(self._state, budgets[0], temperature, **told)]
        told = {} if guidances is None else {"guidances": guidances}
        return self._drafter.propose_rows(self._state, budgets, temperature, **told)

    def select(self, rows: Sequence[int]) -> None:
        """Go on with the given rows only, of several, numbered anew."""
        if self._unread:
            self._unread = [self._unread[row] for row in rows]
        else:
            self._state = self._drafter.select(self._state, rows)
        self._features = [self._features[row] for row in rows]
        self._tokens = [self._tokens[row] for row in rows]
