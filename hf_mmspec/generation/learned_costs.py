"""What forwards cost while a request runs: starts from what was measured before and follows the rounds.

Arithmetic on seconds that others took; owns no clock, chooses nothing, and is one request's own.
"""

from collections import deque
from dataclasses import dataclass
from statistics import median

from .costs import ESSENTIAL_SIZES, ForwardCosts, Points, monotonic

_STEP = 0.3  # share of a surprise that is believed at once
_CLIP = 0.25  # a surprise counts as one of at most this share: a pause of the machine is not a cost
_PACE = 1.02  # three rounds in a row off by more than this, all in one direction: the machine's pace has changed
_IN_A_ROW = 3
_SURVEYS = 2  # rounds for each size of a survey, of which the faster counts
_NEAR = 1.25  # a tree of at most so much more or less is of that size
_PATIENCE = 6  # rounds after which a size is given up: a drafter of few levels cannot fill it
_STRANGE = 0.2  # seconds that far from the forecast, pace apart...
_STRANGE_ROUNDS = 4  # ... in so many of the last eight rounds: the numbers are of another machine or another time
_LONG_AGO = 32  # rounds
_NOTHING = 1e-9  # seconds
# A drafter that has to read more rows than this before it drafts pays for an earlier decision, not for this round.
MOST_ROWS_OF_A_ROUND = 32


@dataclass(frozen=True)
class RoundCosts:
    """Seconds of one round.

    Args:
        tokens: nodes of the verified tree, root included.
        verify, draft, other: seconds of the target's forward, of the drafter (0.0 without one), of the rest.
        levels: levels that were drafted.
        top_k: nodes that were expanded on each of them.
        is_usual: False where the drafter had to catch up, so that `draft` says nothing about other rounds.
    """

    tokens: int
    verify: float
    draft: float = 0.0
    other: float = 0.0
    levels: int = 0
    top_k: int = 1
    is_usual: bool = True

    @property
    def seconds(self) -> float:
        """Of the whole round."""
        return self.verify + self.draft + self.other


class LearnedCosts:
    """`ForwardCosts` that follow the rounds of a request.

    Args:
        start: what is known before its first round.
        in_doubt: whether that was measured unsteadily. Only its pace is then corrected at once; the growth with size
            is surveyed: rounds of `survey_size()` tokens, until all essential sizes were seen, and what was seen
            replaces it. (A steady start that turns out to be wrong is surveyed too, and keeps its shape between
            the sizes that were seen.)
        pace: what the machine was last seen to take, relative to `start`.
        may_explore: False where no round may be spent on learning what others cost.
    """

    def __init__(self, start: ForwardCosts, in_doubt: bool = False, pace: float = 1.0, may_explore: bool = True):
        self._verify = _Curve(start.verify)
        self._verify.scale(pace)
        self._start_pace, self._may_explore = pace, may_explore
        self._level = _Curve(start.level)
        self._first_level, self._overhead = start.first_level, start.overhead
        self._draft_pace = _Pace()
        self._strange: deque[bool] = deque(maxlen=8)
        self._survey = _Survey() if in_doubt else None
        self._surveyed = in_doubt or not may_explore
        self._has_shape = not in_doubt
        self.rounds = 0
        self._last_plain: int | None = None  # the number of that round

    @property
    def costs(self) -> ForwardCosts:
        """As they are believed to be now."""
        return ForwardCosts(self._verify.points, self._first_level, self._level.points, self._overhead)

    @property
    def pace(self) -> float:
        """What verification takes, relative to `start`, for all sizes alike."""
        return self._start_pace * self._verify.pace

    @property
    def plain_seconds(self) -> float:
        """Of a step that drafts nothing."""
        return self.costs.verify_seconds(1) + self._overhead

    def steps_of(self, round_: RoundCosts) -> float:
        """Plain steps that a round of this shape is worth. What this one took does not count alone: a machine that is
        interrupted, or slower for a while, would seem to make drafting useless."""
        further = max(round_.levels - 1, 0) * self._level.at(round_.top_k)
        draft = self._first_level + further if round_.levels else 0.0
        # a plain step takes no longer than a larger one, even where the last one was interrupted
        return (self.costs.verify_seconds(round_.tokens) + draft + self._overhead) / self.plain_seconds

    @property
    def in_doubt(self) -> bool:
        """Whether sizes that were not seen are guesses."""
        return self._survey is not None

    @property
    def plain_step_was_long_ago(self) -> bool:
        """Whether none was seen in the latest rounds."""
        return self._last_plain is None or self.rounds - self._last_plain >= _LONG_AGO

    @property
    def wants_plain_step(self) -> bool:
        """Whether the machine's pace has changed, or only that of the sizes that were seen: a step of plain decoding
        would tell."""
        return self._may_explore and self._last_plain is None and abs(self._verify.pace - 1) > _STRANGE

    def survey_size(self) -> int | None:
        """The number of tokens that the next round should have, so that a doubt can end; None where there is none."""
        return None if self._survey is None else self._survey.wanted

    def observe(self, round_: RoundCosts) -> None:
        """Learn from a round."""
        self.rounds += 1
        surprise = self._verify.follow(round_.tokens, round_.verify)
        self._look_for_strangeness(surprise, is_first_plain=round_.tokens == 1 and self._last_plain is None)
        if round_.tokens == 1:
            self._last_plain = self.rounds
        if self._survey is not None:
            self._survey.note(round_)
            if self._survey.wanted is None:
                points, self._survey = self._survey.points, None
                self._verify = self._verify.through(points) if self._has_shape else _Curve(points)
        if round_.levels > 0 and round_.draft > 0 and round_.is_usual:
            self._follow_draft(round_)
        self._overhead += _STEP * _clipped(round_.other - self._overhead, max(self._overhead, 0.01 * round_.verify))

    def _follow_draft(self, round_: RoundCosts) -> None:
        """First level and further levels share a surprise by what each has of the drafting."""
        further = (round_.levels - 1) * self._level.at(round_.top_k)
        believed = self._first_level + further
        pace = self._draft_pace.of(round_.draft / believed)
        self._first_level *= pace
        further, believed = further * pace, believed * pace
        error = _STEP * _clipped(round_.draft - believed, believed)
        weight = error / (self._first_level**2 + further**2)
        self._level.scale(pace * (1 + weight * further))
        self._first_level = max(self._first_level * (1 + weight * self._first_level), _NOTHING)

    def _look_for_strangeness(self, surprise: float, is_first_plain: bool) -> None:
        """A first plain step that is far off is enough: the growth with size is wrong."""
        self._strange.append(abs(surprise) > _STRANGE)
        is_strange = sum(self._strange) >= _STRANGE_ROUNDS or (self._strange[-1] and is_first_plain)
        if is_strange and not self._surveyed:
            self._survey, self._surveyed = _Survey(), True  # once in a request: a machine may stay restless


class _Survey:
    """What rounds of the essential sizes take, each seen a few times."""

    def __init__(self) -> None:
        self._pending = list(ESSENTIAL_SIZES) * _SURVEYS
        self._patience = _PATIENCE
        self._seen: dict[int, list[float]] = {}

    @property
    def wanted(self) -> int | None:
        """The size to look at next; None once all were seen."""
        return self._pending[0] if self._pending else None

    def note(self, round_: RoundCosts) -> None:
        """A round of any size."""
        self._seen.setdefault(round_.tokens, []).append(round_.verify)
        self._patience -= 1
        if 1 / _NEAR <= round_.tokens / self._pending[0] <= _NEAR or self._patience == 0:
            del self._pending[0]
            self._patience = _PATIENCE

    @property
    def points(self) -> Points:
        """The least seconds of every size that was seen more than once."""
        return monotonic({size: min(all_) for size, all_ in self._seen.items() if len(all_) > 1})


class _Curve:
    """Seconds by size, linear between grid points, that follows what is observed at any size."""

    def __init__(self, points: Points):
        self._sizes = [size for size, _ in points]
        self._seconds = [seconds for _, seconds in points]
        self._pace = _Pace()

    @property
    def pace(self) -> float:
        """What it was scaled by since the start, for all sizes alike."""
        return self._pace.total

    @property
    def points(self) -> Points:
        return monotonic(dict(zip(self._sizes, self._seconds, strict=True)))

    def at(self, size: int) -> float:
        (i, a), (j, b) = self._neighbours(size)
        return max(a * self._seconds[i] + b * self._seconds[j], _NOTHING)

    def through(self, points: Points) -> "_Curve":
        """The curve that goes through `points` and keeps its shape between them, where v may have steps. Beyond them
        it goes on straight."""
        ratio = _Curve(tuple((size, seconds / self.at(size)) for size, seconds in points))
        between = [size for size in self._sizes if points[0][0] < size < points[-1][0]]
        return _Curve(monotonic({size: self.at(size) * ratio.at(size) for size in between} | dict(points)))

    def scale(self, factor: float) -> None:
        self._seconds = [max(seconds * factor, _NOTHING) for seconds in self._seconds]

    def follow(self, size: int, seconds: float) -> float:
        """Move towards `seconds` at `size`; returns how surprising they were, as a share, pace apart."""
        self.scale(self._pace.of(seconds / self.at(size)))
        surprise = seconds / self.at(size) - 1
        if not self._pace.is_settled:
            return surprise
        (i, a), (j, b) = self._neighbours(size)
        step = _STEP * _clipped(seconds - self.at(size), self.at(size)) / (a * a + b * b)
        self._seconds[i] = max(self._seconds[i] + a * step, _NOTHING)
        if j != i:
            self._seconds[j] = max(self._seconds[j] + b * step, _NOTHING)
        return surprise

    def _neighbours(self, size: int) -> tuple[tuple[int, float], tuple[int, float]]:
        """The grid points around `size` and their weights; beyond the grid the last two, as in `ForwardCosts`."""
        if len(self._sizes) == 1:
            return (0, 1.0), (0, 0.0)
        upper = next((i for i, at in enumerate(self._sizes) if at >= size), len(self._sizes) - 1)
        upper = max(upper, 1)
        low, high = self._sizes[upper - 1], self._sizes[upper]
        share = (size - low) / (high - low)
        return (upper - 1, 1 - share), (upper, share)


class _Pace:
    """Notices that everything has become slower or faster at once."""

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=_IN_A_ROW)
        self.total = 1.0

    @property
    def is_settled(self) -> bool:
        """Whether enough was seen to tell it from a surprise about one size."""
        return len(self._recent) == _IN_A_ROW

    def of(self, ratio: float) -> float:
        """The factor that the last observed ratios to the forecast agree on; 1.0 where they do not."""
        self._recent.append(ratio)
        agree = min(self._recent) > _PACE or max(self._recent) < 1 / _PACE
        if len(self._recent) < _IN_A_ROW or not agree:
            return 1.0
        factor = median(self._recent)
        self._recent.clear()
        self.total *= factor
        return factor


def _clipped(error: float, scale: float) -> float:
    return max(min(error, _CLIP * scale), -_CLIP * scale)
