"""What one request's speculation did, in numbers: the `speculation` field of `generate`'s output.

Counts and sums only; nothing here decides anything.
"""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from transformers.generation.utils import GenerateDecoderOnlyOutput

from hf_mmspec.modeling import DraftTree

from .learned_costs import RoundCosts
from .steadiness import LEAST_SHARE


@dataclass
class Speculation:
    """Statistics of one call of `generate`.

    Attributes:
        accepted: drafted tokens that were kept, per round (the bonus token not counted). In a batch a round has an
            entry for each row that had not ended; `row_of` says whose it is.
        drafted: drafted tokens that were checked, likewise (the root not counted).
        forced: those of `accepted` that a logits processor had forced, known without drafting, likewise.
        levels: levels that the drafter drafted, likewise; 0 in a round of plain decoding.
        seconds: wall-clock time of `prefill` (target and drafter), `draft`, `verify` (target forwards over trees)
            and `other` (everything else: acceptance, processors, stopping, caches, streaming).
        row_of: the row of the batch that each entry of `accepted`, `drafted`, `forced` and `levels` belongs to.
        batch: how many rows there were.
    """

    accepted: list[int] = field(default_factory=list)
    drafted: list[int] = field(default_factory=list)
    seconds: dict[str, float] = field(
        default_factory=lambda: {"prefill": 0.0, "draft": 0.0, "verify": 0.0, "other": 0.0}
    )
    forced: list[int] = field(default_factory=list)
    levels: list[int] = field(default_factory=list)
    row_of: list[int] = field(default_factory=list)
    batch: int = 1
    _verify_busy: float = 0.0  # of this thread's processor, in `verify`
    _before_round: dict[str, float] = field(default_factory=dict)

    def record(self, row: int, tree: DraftTree, path: Sequence[int], run: int = 0) -> None:
        """Count a round of one row: its tree, which begins with a forced run of `run` tokens, and the nodes of it that
        were kept."""
        accepted = len(path) - 1
        self.row_of.append(row)
        self.accepted.append(accepted)
        self.drafted.append(len(tree) - 1)
        self.forced.append(min(run, accepted))
        self.levels.append(tree.levels)

    @property
    def rounds(self) -> int:
        """Target forwards after the prefill: no row of a batch was in more of them than the last to end."""
        return max(Counter(self.row_of).values(), default=len(self.accepted))

    @property
    def acceptance_length(self) -> float:
        """L: tokens emitted per target forward after the prefill, the target's own token included (at least 1); in a
        batch for each row that was in the forward.

        The token that the prefill gives is not counted. `nan` when the prefill's token ended the request.
        """
        return _mean_length(self.accepted)

    @property
    def acceptance_length_by_row(self) -> list[float]:
        """L of each row of a batch by itself; `nan` for a row that the prefill's token ended."""
        return [_mean_length(accepted) for accepted in self.accepted_by_row]

    @property
    def accepted_by_row(self) -> list[list[int]]:
        """`accepted`, apart for each row of a batch."""
        if self.batch == 1:
            return [self.accepted]
        by_row: list[list[int]] = [[] for _ in range(self.batch)]
        for row, accepted in zip(self.row_of, self.accepted, strict=True):
            by_row[row].append(accepted)
        return by_row

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

    def costs_of_round(self, trees: Sequence[DraftTree], top_k: int, is_usual: bool) -> RoundCosts:
        """What the latest round took.

        Args:
            trees: each row's; the largest counts.
            top_k: nodes that were expanded on each level.
            is_usual: as in `RoundCosts`.
        """
        return RoundCosts(
            tokens=max(map(len, trees)),
            verify=self._of_round("verify"),
            draft=self._of_round("draft"),
            other=self._of_round("other"),
            levels=max(tree.levels for tree in trees),
            top_k=top_k,
            is_usual=is_usual,
        )

    def _of_round(self, part: str) -> float:
        return self.seconds[part] - self._before_round[part]


def _mean_length(accepted: Sequence[int]) -> float:
    return sum(n + 1 for n in accepted) / len(accepted) if accepted else float("nan")


@dataclass
class SpeculativeOutput(GenerateDecoderOnlyOutput):
    """`GenerateDecoderOnlyOutput` plus `speculation`, the statistics of the call."""

    speculation: Speculation | None = None
