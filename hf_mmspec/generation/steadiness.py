"""Times pieces of work that take turns, and says whether the machine held still meanwhile.

Knows clocks and nothing of what it times.
"""

import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from statistics import median, median_low
from typing import TypeVar

import torch

Name = TypeVar("Name", bound=Hashable)

# On a quiet machine the middle of five repeats takes a few percent longer than the fastest...
_MOST_SPREAD = 1.3
# ... and the thread that waits for the result has a processor to itself. Where two programs share it, it has half.
LEAST_SHARE = 0.8


@dataclass(frozen=True)
class Sample:
    """One repeat: wall-clock `seconds`, and the processor time `busy` that this thread had in them."""

    seconds: float
    busy: float


class Timings(dict[Name, list[Sample]]):
    """Samples by what was timed.

    Args:
        device: where the work ran. A thread that waits for an accelerator may sleep, so only for a CPU the processor
            time says something.
    """

    def __init__(self, device: torch.device):
        super().__init__()
        self.device = device

    def add(self, name: Name, run: Callable[[], object]) -> None:
        """Time `run` once."""
        _finish_queued_work(self.device)
        start, busy = time.perf_counter(), time.thread_time()
        run()
        _finish_queued_work(self.device)
        self.setdefault(name, []).append(Sample(time.perf_counter() - start, time.thread_time() - busy))

    def medians(self) -> dict[Name, float]:
        """Usual seconds."""
        return {name: median_low(each.seconds for each in samples) for name, samples in self.items()}

    def minima(self) -> dict[Name, float]:
        """Least seconds: the best guess where noise, which only ever adds time, was large."""
        return {name: min(each.seconds for each in samples) for name, samples in self.items()}

    @property
    def is_steady(self) -> bool:
        """Whether repeats agree, and nobody else had the processor."""
        least = self.minima()
        spread = median(usual / least[name] for name, usual in self.medians().items())
        return spread <= _MOST_SPREAD and self.had_processor

    @property
    def had_processor(self) -> bool:
        """Whether nobody else had it: enough where times are only compared with one another, as they took turns."""
        samples = [sample for each in self.values() for sample in each]
        share = sum(each.busy for each in samples) / sum(each.seconds for each in samples)
        return self.device.type != "cpu" or share >= LEAST_SHARE


def take_turns(
    runs: Mapping[Name, Callable[[], object]],
    device: torch.device,
    repetitions: int,
    is_wanted: Callable[[int, int, Name], bool] = lambda repetition, position, name: True,
) -> Timings[Name]:
    """Time every run `repetitions` times, one after another, so that a change of the machine's pace hits all alike.

    Args:
        is_wanted: asked before each repeat, with its number, the run's place in `runs` and its name.
    """
    timings: Timings[Name] = Timings(device)
    for repetition in range(repetitions):
        for position, (name, run) in enumerate(runs.items()):
            if is_wanted(repetition, position, name):
                timings.add(name, run)
    return timings


def _finish_queued_work(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
