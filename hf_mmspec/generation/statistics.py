"""What one request's speculation did, in numbers: the `speculation` field of `generate`'s output.

Counts and sums only; nothing here decides anything.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from transformers.generation.utils import GenerateDecoderOnlyOutput

from hf_mmspec.modeling import DraftTree

from .learned_costs import MOST_ROWS_OF_A_ROUND, RoundCosts
from .steadiness import LEAST_SHARE


@dataclass
class Speculation:
    """Statistics of one call of `generate`.

    Attributes:
        accepted: drafted tokens that were kept, per round (the bonus token not counted).
        drafted: drafted tokens that were checked, per round (the root not counted).
        levels: levels that were drafted, per round; 0 in a round of plain decoding.
        seconds: wall-clock time of `prefill` (target and drafter), `draft`, `verify` (target forwards over trees)
            and `other` (everything else: acceptance, processors, stopping, caches, streaming).
    """

    accepted: list[int] = field(default_factory=list)
    drafted: list[int] = field(default_factory=list)
    levels: list[int] = field(default_factory=list)
    seconds: dict[str, float] = field(
        default_factory=lambda: {"prefill": 0.0, "draft": 0.0, "verify": 0.0, "other": 0.0}
    )
    _verify_busy: float = 0.0  # of this thread's processor, in `verify`
    _before_round: dict[str, float] = field(default_factory=dict)

    @property
    def rounds(self) -> int:
        """Target forwards after the prefill."""
        return len(self.accepted)

    @property
    def acceptance_length(self) -> float:
        """L: tokens emitted per target forward after the prefill, the target's own token included (at least 1).

        The token that the prefill gives is not counted. `nan` when the prefill's token ended the request.
        """
        return sum(n + 1 for n in self.accepted) / self.rounds if self.rounds else float("nan")

    @property
    def was_quiet(self) -> bool:
        """Whether this thread had a processor to itself while it waited for the target. Says nothing where an
        accelerator does the work."""
        return self._verify_busy >= LEAST_SHARE * self.seconds["verify"]

    @contextmanager
    def timing(self, part: str) -> Iterator[None]:
        """Add the time of the `with` block to `seconds[part]`."""
        start, busy = time.perf_counter(), time.thread_time()
        try:
            yield
        finally:
            self.seconds[part] += time.perf_counter() - start
            if part == "verify":
                self._verify_busy += time.thread_time() - busy

    @contextmanager
    def round(self) -> Iterator[None]:
        """Time a round: what neither model used of it is `other`."""
        self._before_round = dict(self.seconds)
        try:
            with self.timing("other"):
                yield
        finally:
            self.seconds["other"] -= sum(self._of_round(part) for part in ("draft", "verify"))

    def count(self, tree: DraftTree, path: Sequence[int]) -> None:
        """A round's tree, and the nodes of it that were kept."""
        self.accepted.append(len(path) - 1)
        self.drafted.append(len(tree) - 1)
        self.levels.append(tree.levels)

    def costs_of_round(self, tree: DraftTree, top_k: int, waiting_rows: int) -> RoundCosts:
        """What the latest round took.

        Args:
            top_k: nodes that were expanded on each level.
            waiting_rows: accepted rows that the drafter read before it drafted.
        """
        return RoundCosts(
            tokens=len(tree),
            verify=self._of_round("verify"),
            draft=self._of_round("draft"),
            other=self._of_round("other"),
            levels=tree.levels,
            top_k=top_k,
            is_usual=waiting_rows <= MOST_ROWS_OF_A_ROUND,
        )

    def _of_round(self, part: str) -> float:
        return self.seconds[part] - self._before_round[part]


@dataclass
class SpeculativeOutput(GenerateDecoderOnlyOutput):
    """`GenerateDecoderOnlyOutput` plus `speculation`, the statistics of the call."""

    speculation: Speculation | None = None
