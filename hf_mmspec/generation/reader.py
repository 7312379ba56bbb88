"""The drafter's half of a request: it reads what the target said when it next drafts, all at once.

While nothing is drafted, nothing is read: the prompt and the features of accepted tokens wait (a few kilobytes each).
Knows neither costs nor acceptance.
"""

import torch

from hf_mmspec.modeling import BorrowedParts, DraftBudget, Drafter, DraftState, DraftTree, TargetPrompt

# Rows that may wait; then they are read, at a fraction of what the target took to compute them.
_MOST_WAITING = 4096


class DraftReader:
    """A drafter with one request's state.

    Args:
        drafter, borrowed: the drafter, and what it borrowed from the target.
        prompt: what the target's prefill gave.
        next_token: `int64 (1, 1)`, the first token of the answer.
    """

    def __init__(self, drafter: Drafter, borrowed: BorrowedParts, prompt: TargetPrompt, next_token: torch.Tensor):
        self._drafter, self._borrowed = drafter, borrowed
        self._start: tuple[TargetPrompt, torch.Tensor] | None = (prompt, next_token)
        self._state: DraftState | None = None
        self._features: list[torch.Tensor] = []
        self._tokens: list[torch.Tensor] = []

    @property
    def has_read_prompt(self) -> bool:
        """False until it drafts for the first time."""
        return self._start is None

    @property
    def waiting_rows(self) -> int:
        """Accepted rows that it has not read."""
        return sum(tokens.shape[1] for tokens in self._tokens)

    def read_prompt(self) -> None:
        """Once; later calls do nothing."""
        if self._start is not None:
            self._state = self._drafter.prefill(*self._start, self._borrowed)
            self._start = None

    def follow(self, features: torch.Tensor, next_tokens: torch.Tensor) -> None:
        """Take note of a round's accepted rows: their features `(1, m, F)`, root first, and the token emitted after
        each of them, `int64 (1, m)`."""
        self._features.append(features)
        self._tokens.append(next_tokens)
        if self.waiting_rows > _MOST_WAITING:
            self._catch_up()

    def propose(self, budget: DraftBudget, temperature: float | None) -> DraftTree:
        """Read what waits, then draft, as `Drafter.propose`."""
        self._catch_up()
        return self._drafter.propose(self._state, budget, temperature)

    def _catch_up(self) -> None:
        self.read_prompt()
        if self._tokens:
            self._drafter.extend(self._state, torch.cat(self._features, dim=1), torch.cat(self._tokens, dim=1))
            self._features.clear()
            self._tokens.clear()
