"""Chooses how much to draft: the depth and size of the tree that give most tokens per second on this machine.

Arithmetic on measured costs and measured acceptance; measures nothing itself (`costs.py`) and knows no drafter family.

The model: a round with the tree (depth d, width k, n tokens) takes `v(n) + draft(d, k) + overhead` seconds and emits
L = 1 + the sum, over its n - 1 drafted nodes, of the probability that the node is on the accepted path. A node of rank
r at depth d is accepted with probability p[d][r] after its parent, so L is exact for best-first growth of a tree whose
nodes are worth what nodes of their depth and rank are worth on average.

Rounds differ, so depth, width and size are the most that a round may draft. At S tokens per second, n nodes that take
c seconds more to verify than one have to promise S * c tokens: a round proposes the number that promises most above
that. Growth ends where a level promises less than it takes to draft it and to verify a node of it.
"""

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate, count, islice
from operator import truediv
from typing import Any

from transformers import GenerationConfig, PreTrainedModel

from hf_mmspec.modeling import DraftBudget

from .costs import ForwardCosts

BUDGET_FIELDS = ("draft_depth", "draft_top_k", "draft_total_tokens", "draft_mode")

# The search space: deeper or wider trees have not paid on any machine that was measured.
_DEPTHS = range(1, 17)
_TOP_KS = (1, 2, 3, 4, 6, 8, 10)
_MOST_TOKENS = 64
# Drafting has to promise this much over plain decoding: costs are measured with an error of about that size.
_LEAST_GAIN = 1.02
# Easy rounds, in which the drafter stays sure, may have so many times the levels and nodes that would be best for all
# rounds alike, and so many levels in any case: v may have a step that only many nodes are worth.
_EASY_ROUNDS = 2
_EASY_LEVELS = 8
# Without a measurement: a drafter's first choice is right 7 times in 10, its r-th ((1 - 0.7) * 0.6)^(r - 1) as often.
_PRIOR_ACCEPTANCE = (0.7,)
_RANK_DISCOUNT = 0.6
# A path that the drafter gives the probability p is accepted with about p where the target samples, and with p^0.85
# where it takes its most probable token (`python -m hf_mmspec.evaluation.calibration`).
_GREEDY_EXPONENT = 0.85


@dataclass(frozen=True)
class Acceptance:
    """How often the target takes a drafter's proposals.

    Args:
        by_rank: `by_rank[d - 1][r - 1]` is the probability that the target's token is the drafter's r-th choice at
            depth d, given that the path up to depth d - 1 was accepted. The last depth stands for all deeper ones.
        max_levels: the drafter drafts no deeper (k-slot heads); None where it can go on.
    """

    by_rank: tuple[tuple[float, ...], ...]
    max_levels: int | None = None

    @classmethod
    def from_depths(cls, by_depth: Sequence[float], max_levels: int | None = None) -> "Acceptance":
        """From first-choice rates alone; the rates of further choices are a prior that falls geometrically."""
        return cls(
            tuple(
                tuple(rate * ((1 - rate) * _RANK_DISCOUNT) ** (rank - 1) for rank in range(1, max(_TOP_KS) + 1))
                for rate in by_depth
            ),
            max_levels,
        )

    @classmethod
    def of(cls, drafter: PreTrainedModel) -> "Acceptance":
        """What the drafter's config measured (`acceptance_by_rank`, else `acceptance_by_depth`), else a prior."""
        config, max_levels = drafter.config, getattr(drafter, "max_levels", None)
        if by_rank := getattr(config, "acceptance_by_rank", None):
            return cls(tuple(tuple(ranks) for ranks in by_rank), max_levels)
        return cls.from_depths(getattr(config, "acceptance_by_depth", None) or _PRIOR_ACCEPTANCE, max_levels)

    def at(self, depth: int, top_k: int) -> tuple[float, ...]:
        """Probabilities of the first `top_k` choices at `depth` (from 1); none where nothing is drafted."""
        if self.max_levels is not None and depth > self.max_levels:
            return ()
        return self.by_rank[min(depth, len(self.by_rank)) - 1][:top_k]


@dataclass(frozen=True)
class Wishes:
    """The parts of a budget that somebody asked for, as in `DraftBudget`; None where the choice is ours."""

    depth: int | None = None
    top_k: int | None = None
    total_tokens: int | None = None
    mode: Any = None

    @classmethod
    def of(cls, generation_config: GenerationConfig, drafter: PreTrainedModel) -> "Wishes":
        """Those of the request where it has any, else the drafter's `generation_config`'s."""
        asked, usual = generation_config, drafter.generation_config
        return cls(*(_first(getattr(asked, name, None), getattr(usual, name, None)) for name in BUDGET_FIELDS))

    @property
    def to_draft(self) -> bool:
        """A depth or a size is a wish to draft, whether it pays or not."""
        return self.depth is not None or self.total_tokens is not None

    @property
    def complete(self) -> DraftBudget | None:
        """The budget, where nothing is left to choose.

        Raises:
            ValueError: a wish is out of range.
        """
        depth, top_k, total_tokens, mode = self.depth, self.top_k, self.total_tokens, self.mode
        if depth is not None and (depth == 0 or mode == "chain"):
            return DraftBudget(depth, _first(top_k, 1), _first(total_tokens, depth + 1), mode or "tree")
        if depth is not None and top_k is not None and total_tokens is not None:
            return DraftBudget(depth, top_k, total_tokens, mode or "tree")
        return None


def choose_budget(
    costs: ForwardCosts,
    acceptance: Acceptance,
    *,
    depth: int | None = None,
    top_k: int | None = None,
    total_tokens: int | None = None,
    mode: str | None = None,
    greedy: bool = True,
    is_padded: bool = False,
) -> DraftBudget:
    """The budget with most expected tokens per second; what is given stays as given and the rest is searched.

    Args:
        costs: seconds of the target's and the drafter's forwards on this machine.
        acceptance: how often drafts are accepted.
        depth, top_k, total_tokens, mode: as in `DraftBudget`.
        greedy: the target takes its most probable token, so drafts are accepted more often than the drafter believes.
        is_padded: every tree costs what the largest of a batch costs, so that nothing is saved by a smaller one.

    Returns:
        A budget with a threshold and prices (none where `is_padded`); one of depth 0 (plain decoding) where no tree
        promises to be faster. A `depth` or `total_tokens` that is given is a wish to draft, and honoured.

    Raises:
        ValueError: a given value is out of range.
    """
    DraftBudget(*(1 if value is None else value for value in (depth, top_k, total_tokens)), mode or "tree")
    budget, speed = _search(costs, acceptance, Wishes(depth, top_k, total_tokens, mode))
    if mode is None and not greedy:
        # Even where a single branch is best: a drawn chain takes random numbers, of which a seed would then say what
        # they mean only together with the machine's pace.
        budget = replace(budget, mode="tree")
    if is_padded or budget.depth == 0 or (budget.mode == "chain" and not greedy):
        return budget  # a sampled chain knows neither, see `sample_chain`
    most_levels = acceptance.max_levels or _DEPTHS[-1]
    budget = _for_easy_rounds(budget, depth is None, total_tokens is None, most_levels)
    return _with_prices(budget, speed, costs, greedy)


@dataclass(frozen=True)
class Forecast:
    """What the best tree promises on average.

    Args:
        budget: depth and size of the tree.
        length: L, tokens per target forward.
        growth: v, the target's forward over the tree relative to one token.
        speedup: over decoding token by token.
    """

    budget: DraftBudget
    length: float
    growth: float
    speedup: float


def forecast(costs: ForwardCosts, acceptance: Acceptance) -> Forecast:
    """The tree that the automatic choice starts from, and its promise; 1.0 where none promises to be faster."""
    budget, speed = _search(costs, acceptance, Wishes())
    tokens = budget.total_tokens
    if budget.depth == 0:
        return Forecast(budget, 1.0, 1.0, 1.0)
    length = expected_length(acceptance, budget.depth, budget.top_k)[tokens - 1]
    return Forecast(budget, length, costs.growth(tokens), speed * costs.verify_seconds(1))


def expected_length(acceptance: Acceptance, depth: int, top_k: int) -> list[float]:
    """Expected L of the best tree with n tokens, root included, for n = 1, 2, ... (index n - 1)."""
    levels = islice(_levels(acceptance, top_k), depth)
    return list(accumulate(deque(levels, maxlen=1).pop() if depth else [], initial=1.0))


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def _levels(acceptance: Acceptance, top_k: int, most: int | None = None) -> Iterator[list[float]]:
    """Level by level, the acceptance probabilities of the nodes of a tree grown like EAGLE-2's so far, falling: the
    best `top_k` of a level are expanded, each into its `top_k` best children. At most the best `most` are kept."""
    nodes: list[float] = []
    level = [1.0]
    for depth in count(1):
        rates = acceptance.at(depth, top_k)
        children = sorted((parent * rate for parent in level for rate in rates), reverse=True)[:most]
        nodes = sorted(nodes + children, reverse=True)[:most]
        level = children[:top_k]
        yield nodes


@lru_cache(maxsize=256)
def _search(costs: ForwardCosts, acceptance: Acceptance, wishes: Wishes) -> tuple[DraftBudget, float]:
    """The best budget without thresholds, and its expected tokens per second. Speed rises and then falls with depth
    and with width, so the search ends where it has fallen twice."""
    best, best_speed = (0, 1, 1), -math.inf if wishes.to_draft else _LEAST_GAIN / costs.verify_seconds(1)
    verify = [costs.verify_seconds(n) + costs.overhead for n in range(_MOST_TOKENS + 1)]
    widths = [1] if wishes.mode == "chain" else _TOP_KS if wishes.top_k is None else [wishes.top_k]
    # No tree of so many tokens has more levels, whatever was asked for.
    asked_depth = None if wishes.depth is None else min(wishes.depth, _MOST_TOKENS - 1)
    width_peak = _Peak()
    for k in widths:
        level_seconds, depth_peak = costs.level_seconds(k), _Peak()
        for d, nodes in enumerate(islice(_levels(acceptance, k, _MOST_TOKENS - 1), asked_depth or _DEPTHS[-1]), 1):
            if asked_depth not in (None, d):
                continue
            n, speed = _best_size(nodes, verify, costs.first_level + (d - 1) * level_seconds, wishes.total_tokens)
            if speed > best_speed:
                best_speed, best = speed, (wishes.depth or d, k, wishes.total_tokens or n)
            if depth_peak.is_behind(speed):
                break
        if width_peak.is_behind(depth_peak.height):
            break
    return DraftBudget(*best, _shape(wishes.mode, best[1] if best[0] else 2)), best_speed


class _Peak:
    """Has a curve passed its highest point?"""

    def __init__(self) -> None:
        self.height = -math.inf
        self._falls = 0

    def is_behind(self, value: float) -> bool:
        """Told the next point; True when it is the second in a row that is not higher than any before."""
        self._falls = 0 if value > self.height else self._falls + 1
        self.height = max(value, self.height)
        return self._falls == 2


def _best_size(nodes: list[float], verify: list[float], draft: float, wanted: int | None) -> tuple[int, float]:
    """The number of tokens, root included, with most tokens per second, and how many those are. At least one node is
    drafted.

    Args:
        nodes: acceptance probabilities, falling.
        verify: seconds of a round without drafting, by number of tokens.
        draft: seconds of drafting.
        wanted: the number of tokens, where it is given.
    """
    lengths = list(accumulate(nodes, initial=1.0))
    if wanted is not None:
        tokens = min(wanted, len(lengths))
        return tokens, lengths[tokens - 1] / (verify[tokens] + draft)
    seconds = [each + draft for each in verify[2:]]
    speeds = list(map(truediv, lengths[1:], seconds))
    speed = max(speeds, default=0.0)
    return 2 + speeds.index(speed) if speeds else 1, speed


def _for_easy_rounds(budget: DraftBudget, depth_is_free: bool, size_is_free: bool, max_levels: int) -> DraftBudget:
    """Room for rounds that are easier than the average one."""
    depth, size = budget.depth, budget.total_tokens
    if depth_is_free:
        depth = min(max(_EASY_ROUNDS * depth, _EASY_LEVELS), max_levels)
    if size_is_free:
        size = min(max(_EASY_ROUNDS * size, depth + 1), _MOST_TOKENS)
    return replace(budget, depth=depth, total_tokens=depth + 1 if size_is_free and budget.mode == "chain" else size)


def _with_prices(budget: DraftBudget, speed: float, costs: ForwardCosts, greedy: bool) -> DraftBudget:
    """With what a level and n nodes have to promise at `speed` tokens per second: a level's threshold, nodes' prices.
    v may have steps, so a level is charged for a node by the slope of v over the upper half of the tree, and sizes are
    compared as wholes. The threshold of levels is not lowered for greedy targets: around it the speed hardly changes,
    and fewer levels leave more of the round to the target."""
    sizes = range(1, budget.total_tokens + 1)
    plain = costs.verify_seconds(1)
    # rounding may let interpolated seconds fall
    prices = tuple(accumulate((speed * (costs.verify_seconds(n) - plain) for n in sizes), max))
    half = max(budget.total_tokens // 2, 1)
    node = (prices[-1] - prices[half - 1]) / max(budget.total_tokens - half, 1)
    level = min(max(speed * costs.level_seconds(budget.top_k) + node, 0.0), 1.0)
    return replace(budget, level_threshold=level, prices=prices, exponent=_GREEDY_EXPONENT if greedy else 1.0)


def _shape(mode: str | None, top_k: int) -> Any:
    return mode or ("chain" if top_k == 1 else "tree")
