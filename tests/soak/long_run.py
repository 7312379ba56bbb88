"""The soak itself: many requests in one process, some of them again in fresh ones, and threads side by side.

Knows nothing of what a request is.
"""

import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .memory import Held, growth, held
from .mixed import IN_THREADS, World, answer

MOST_GROWTH = 0.02
_ROOT = Path(__file__).parents[2]


@dataclass
class Run:
    """What came of a run.

    Attributes:
        kinds: requests by kind.
        memory: after the warm-up and at even distances from then on.
        repeated: requests that a fresh process did again.
        differences: what a fresh process or a thread answered otherwise.
    """

    kinds: Counter = field(default_factory=Counter)
    memory: list[Held] = field(default_factory=list)
    repeated: int = 0
    threads: int = 0
    differences: list[str] = field(default_factory=list)

    @property
    def growth(self) -> float:
        return growth(self.memory)

    @property
    def is_good(self) -> bool:
        return self.growth <= MOST_GROWTH and not self.differences


def soak(
    requests: int, seed: int, samples: int, tell: Callable[[int, Held], None], world: World, points: int = 20
) -> Run:
    """Do the requests; every so many of them, `samples` in all, are done again by one fresh process.

    Args:
        tell: gets the number of requests done, and what is held then.
        world: the models that they use.
        points: how often memory is looked at; the first quarter is the warm-up.
    """
    run, answers = Run(), {}
    for number in range(requests):
        kind, result = answer(world, number, seed)
        run.kinds[kind] += 1
        if number % max(requests // samples, 1) == 0:
            answers[number] = json.dumps(result)
        if (number + 1) % max(requests // points, 1) == 0:
            now = held()
            tell(number + 1, now)
            if number + 1 >= requests // 4:
                run.memory.append(now)
    run.repeated = len(answers)
    for number, again in _in_a_fresh_process(list(answers), seed).items():
        if again != answers[number]:
            run.differences.append(f"request {number}: {answers[number]}, in a fresh process {again}")
    return run


def _in_a_fresh_process(numbers: list[int], seed: int) -> dict[int, str]:
    """The last first, each with models of its own."""
    command = [sys.executable, "-m", "tests.soak", "--seed", str(seed), "--repeat", *map(str, reversed(numbers))]
    output = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True)
    if output.returncode:
        raise RuntimeError(f"a fresh process failed: {output.stderr[-2000:]}")
    return {int(number): result for number, result in json.loads(output.stdout.splitlines()[-1]).items()}


def repeat(numbers: list[int], seed: int) -> dict[int, str]:
    """What `_in_a_fresh_process` asks for."""
    return {number: json.dumps(answer(World(), number, seed)[1]) for number in numbers}


def side_by_side(run: Run, worlds: Sequence[World], each: int, seed: int) -> None:
    """A thread for each of `worlds` does `each` requests at the same time; then one after the other, to compare."""
    threads = len(worlds)
    answers: list[list[str]] = [[] for _ in worlds]
    together = threading.Barrier(threads)

    def work(thread: int, to: list[str]) -> None:
        for number in range(thread * each, (thread + 1) * each):
            try:
                to.append(json.dumps(answer(worlds[thread], number, seed, IN_THREADS)))
            except Exception as error:
                to.append(repr(error))

    def start(thread: int) -> None:
        together.wait()
        work(thread, answers[thread])

    started = [threading.Thread(target=start, args=(thread,)) for thread in range(threads)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()
    run.threads = threads
    for thread, ours in enumerate(answers):
        alone: list[str] = []
        work(thread, alone)
        for number, (mine, other) in enumerate(zip(ours, alone, strict=True)):
            if mine != other or not mine.startswith("["):
                run.differences.append(f"request {number} of thread {thread}: {mine}, alone {other}")
