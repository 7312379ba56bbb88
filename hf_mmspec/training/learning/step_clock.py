"""How long steps take: reading their records, both passes and the optimiser, without measuring L or checkpoints.

Knows Trainer's callbacks; what is done with the seconds is decided elsewhere.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from transformers import TrainerCallback


class StepClock(TrainerCallback):
    """Adds up seconds between `on_step_begin` and `on_step_end`, and those of `running()` blocks."""

    def __init__(self) -> None:
        self._seconds = self._begun = 0.0

    def on_step_begin(self, args, state, control, **kwargs):
        """Start."""
        self._begun = time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs):
        """Stop."""
        self._seconds += time.perf_counter() - self._begun

    @contextmanager
    def running(self) -> Iterator[None]:
        """The block inside counts, too."""
        begun = time.perf_counter()
        yield
        self._seconds += time.perf_counter() - begun

    def taken(self) -> float:
        """Seconds since this was asked last."""
        seconds, self._seconds = self._seconds, 0.0
        return seconds
