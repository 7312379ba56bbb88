"""What one request's speculation did, in numbers: the `speculation` field of `generate`'s output.

Counts and sums only; nothing here decides anything.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from transformers.generation.utils import GenerateDecoderOnlyOutput


@dataclass
class Speculation:
    """Statistics of one call of `generate`.

    Attributes:
        accepted: drafted tokens that were kept, per round (the bonus token not counted).
        drafted: drafted tokens that were checked, per round (the root not counted).
        forced: those of `accepted` that a logits processor had forced, known without drafting, per round.
        seconds: wall-clock time of `prefill` (target and drafter), `draft`, `verify` (target forwards over trees)
            and `other` (everything else: acceptance, processors, stopping, caches, streaming).
    """

    accepted: list[int] = field(default_factory=list)
    drafted: list[int] = field(default_factory=list)
    forced: list[int] = field(default_factory=list)
    seconds: dict[str, float] = field(
        default_factory=lambda: {"prefill": 0.0, "draft": 0.0, "verify": 0.0, "other": 0.0}
    )

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

    @contextmanager
    def timing(self, part: str) -> Iterator[None]:
        """Add the time of the `with` block to `seconds[part]`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[part] += time.perf_counter() - start


@dataclass
class SpeculativeOutput(GenerateDecoderOnlyOutput):
    """`GenerateDecoderOnlyOutput` plus `speculation`, the statistics of the call."""

    speculation: Speculation | None = None
