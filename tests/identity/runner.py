"""Runs cases family by family until one fails, and counts what was run by dimension.

Knows how many of what, not what a case is made of; how they are printed is `__main__`'s business.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.families.test_families import WORKING
from tests.generation.test_every_family import DRAFTERS

from .case import Case
from .models import Models
from .strategy import cases

# as docs and papers call them
_NAMES = {"vispec": "ViSpec", "msd": "MSD", "flash": "FLASH", "eagle": "EAGLE-2", "eagle3": "EAGLE-3"}


@dataclass
class Failure:
    """The smallest case that failed in its family, and why."""

    case: Case
    error: Exception


@dataclass
class Report:
    """What was run.

    Attributes:
        cases: how many, all different ones.
        by: counts by dimension and value.
        accepted: drafted tokens that were kept, of the cases whose statistics were asked for.
    """

    by: dict[str, Counter] = field(default_factory=dict)
    accepted: int = 0
    failures: list[Failure] = field(default_factory=list)
    _seen: set[Case] = field(default_factory=set)

    @property
    def cases(self) -> int:
        return len(self._seen)

    def add(self, case: Case) -> None:
        """Count a case, once."""
        if case in self._seen:
            return
        self._seen.add(case)
        for dimension, value in _dimensions(case):
            self.by.setdefault(dimension, Counter())[value] += 1


def run(count: int, first_seed: int, tell: Callable[[Report], None], families=tuple(WORKING)) -> Report:
    """Check at least `count` cases, the same ones for the same seed, in equal parts by family.

    Args:
        tell: called after each family.
    """
    report, models = Report(), Models()
    each = -(-count // len(families))
    for number, family in enumerate(families):
        wanted, start = report.cases + each, first_seed
        while report.cases < wanted and not report.failures:
            # hypothesis begins with the simplest case each time, and may repeat others; each counts once
            _run_family(family, wanted - report.cases + 3, start * len(families) + number, models, report)
            start += 1000
        tell(report)
        if report.failures:
            break
    return report


def _run_family(family: str, count: int, number: int, models: Models, report: Report) -> None:
    smallest: list[Failure] = []

    @seed(number)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )
    @given(case=cases(family))
    def check(case: Case) -> None:
        try:
            speculation = case.check(models)
        except Exception as error:
            smallest[:] = [Failure(case, error)]  # hypothesis ends with the smallest one
            raise
        report.add(case)
        report.accepted += sum(speculation.accepted) if speculation else 0

    try:
        check()
    except Exception:
        if not smallest:
            raise
        report.failures += smallest


def _dimensions(case: Case) -> Iterator[tuple[str, str]]:
    yield "target family", case.family
    yield "drafter", _drafter(case.drafter)
    yield "batch", str(len(case.rows))
    counts = {pictures for _, pictures, _ in case.rows}
    yield "pictures of a row", str(*counts) if len(counts) == 1 else "ragged"
    yield "rows", "one" if len(case.rows) == 1 else "ragged"
    yield "returned sequences", "2" if case.repeated else "1"
    for name in case.processors or ("none",):
        yield "logits processors", name
    yield "choice", case.warper or "greedy"
    for name in _stops(case):
        yield "stopping", name
    yield "cache", case.cache
    yield "draft mode", case.mode
    yield "compared", "tokens, scores and logits" if case.scores else "tokens"


def _drafter(name: str) -> str:
    if name not in DRAFTERS:
        return f"double, {name}"
    if name.startswith("eagle_fixed"):
        return "EAGLE-1"
    return _NAMES[DRAFTERS[name][0]]


def _stops(case: Case) -> Iterator[str]:
    yield "max_length" if case.total_length else "max_new_tokens"
    if case.ends:
        yield "eos"
    if case.stop_at is not None:
        yield "stop string"
    if case.criterion or "criterion" in case.processors:
        yield "criterion"
