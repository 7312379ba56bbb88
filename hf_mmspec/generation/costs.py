"""Measures what forwards cost on this machine: n tokens through the target, one level of a draft tree.

Times and caches; decides nothing (`budget.py` does). Neither the request nor the random state is touched.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from transformers import PreTrainedModel

from hf_mmspec.modeling import DraftBudget, DraftTree, TargetPrompt
from hf_mmspec.modeling.binding import find_head, input_device

from .cache import TreeCache
from .cost_cache import Measured, fingerprints, remembered, revise
from .drafting import Drafting
from .few_rows import fast_for_few_rows, ways_in, ways_of
from .steadiness import Timings, take_turns
from .tree_batch import TreeBatch
from .tree_mask import LayerWindows, tree_attention_mask
from .uncompiled import is_compiled, uncompiled

# Tokens in the cache while forwards are timed: a picture and a short conversation.
CONTEXT = 300
# In the order of importance: a slow target is timed at the first few only, the rest is interpolated.
_SIZES = (1, 8, 32, 16, 4, 64, 2, 3, 24, 48)
ESSENTIAL_SIZES = _SIZES[:3]
# For several rows; a forward of more tokens than `_MOST_TOKENS` in all says nothing that smaller ones do not.
_BATCH_SIZES = (1, 4, 2, 8, 16, 32)
_MOST_ROWS = 32  # that are timed at once: the memory of more is the request's, and they cost in proportion
_MOST_TOKENS = 256
_WIDTHS = (1, 4, 10)
_LEVELS = 4
_TIME_LIMIT = 1.2  # seconds for the target, the same again at most for the drafter
_REPETITIONS = 5
# Verifying eight tokens takes no less time than one, and hardly more than eight times as much: else it was another
# program's time.
_LEAST_GROWTH, _MOST_GROWTH = 0.9, 1.5
_NOTHING = 1e-9  # seconds: what noise hides is no cost worth knowing, but a cost is positive
# Host work per round that is in neither forward (acceptance, processors, cache), as a share of one decoding step.
_OVERHEAD_SHARE = 0.03

Points = tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class ForwardCosts:
    """Seconds on one machine; grids are `(size, seconds)` pairs, read with linear interpolation.

    Args:
        verify: the target's forward over n new tokens, head included, on top of `CONTEXT` cached ones.
        first_level: what the drafter needs for a tree of one level: taking in the accepted rows, and level 1.
        level: one further level of the tree, by the number of nodes that are expanded.
        overhead: the rest of a round.
    """

    verify: Points
    first_level: float
    level: Points
    overhead: float = 0.0

    def verify_seconds(self, tokens: int) -> float:
        """Seconds of the target's forward over `tokens` new tokens."""
        return _interpolate(self.verify, tokens)

    def growth(self, tokens: int) -> float:
        """v(n): the forward over n tokens relative to the forward over one."""
        return self.verify_seconds(tokens) / self.verify_seconds(1)

    def draft_seconds(self, depth: int, top_k: int) -> float:
        """Seconds of drafting a tree of `depth` levels, `top_k` nodes expanded on each."""
        return self.first_level + (depth - 1) * self.level_seconds(top_k) if depth else 0.0

    def level_seconds(self, top_k: int) -> float:
        """Seconds of one further level with `top_k` nodes expanded."""
        return _interpolate(self.level, top_k)

    def round_seconds(self, tokens: int, depth: int, top_k: int) -> float:
        """Seconds of a whole round."""
        return self.verify_seconds(tokens) + self.draft_seconds(depth, top_k) + self.overhead


@dataclass(frozen=True)
class CostRecord:
    """What is kept of a target and a drafter on this machine.

    Args:
        costs: as measured, or as later requests corrected them.
        in_doubt: whether they were measured while the machine was busy: they are not kept on disk, and a later
            request measures again.
        keys: of the target's numbers and of the drafter's.
        rows: batch size that was measured.
    """

    costs: ForwardCosts
    in_doubt: bool
    keys: tuple[str, str]
    rows: int = 1

    def revise(self, costs: ForwardCosts) -> None:
        """Keep `costs` from now on, in the process and on disk: rounds of a quiet machine have shown them."""
        revise(self.keys[0], dict(costs.verify))
        revise(self.keys[1], {0: costs.first_level, **dict(costs.level)})


def cost_record(target: PreTrainedModel, drafter: PreTrainedModel, rows: int = 1) -> CostRecord:
    """Measured once per machine, target, drafter and batch size (rounded up to a power of two, at most
    `_MOST_ROWS`), and kept in the process and on disk; again where the machine was busy, at a later request.

    Args:
        target: the model, or the view of it that a request runs, which saves making one.
    """
    rows = min(1 << (rows - 1).bit_length(), _MOST_ROWS)
    suffix, essential = f"-{rows}" if rows > 1 else "", _sizes(rows)[: len(ESSENTIAL_SIZES)]
    target = fast_for_few_rows(target)
    alone, together = (key + suffix for key in fingerprints(target, drafter))
    alone, together = alone + _named(ways_in(target)), together + _named(ways_of(drafter))
    verify = remembered(alone, lambda: _steady_verify(target, rows), essential, _are_credible)
    draft = remembered(together, lambda: _steady_draft(target, drafter, rows), (0, *_WIDTHS))
    in_doubt = verify.in_doubt or draft.in_doubt
    return CostRecord(_combine(verify.numbers, draft.numbers), in_doubt, (alone, together), rows)


def _named(ways: Mapping[int, str]) -> str:
    """For a file's name: how a few rows are multiplied, which changes what they cost."""
    return "".join(f"-{way}" for way in sorted(set(ways.values())))


def cached_costs(target: PreTrainedModel, drafter: PreTrainedModel, rows: int = 1) -> ForwardCosts:
    """The costs of `cost_record`."""
    return cost_record(target, drafter, rows).costs


def _sizes(rows: int) -> tuple[int, ...]:
    """Numbers of tokens per row that are timed, the important ones first: fewer where each is a token of many rows."""
    return _SIZES if rows == 1 else tuple(size for size in _BATCH_SIZES if size <= max(_MOST_TOKENS // rows, 4))


def measure_verify(
    target: PreTrainedModel, sizes: Iterable[int] = _SIZES, time_limit: float = _TIME_LIMIT, rows: int = 1
) -> dict[int, float]:
    """Median seconds of the target's forward, head included, by number of new tokens in each of `rows` rows.

    Args:
        sizes: numbers of tokens, the important ones first: after `time_limit` seconds only the first three are sure
            to be there.
    """
    return _time_verify(target, sizes, time_limit, rows).medians()


def _steady_verify(target: PreTrainedModel, rows: int) -> Measured:
    timings = _time_verify(target, _sizes(rows), _TIME_LIMIT, rows)
    usual = timings.medians()
    is_steady = timings.is_steady and _are_credible(usual)
    return Measured(usual if is_steady else timings.minima(), is_steady)


def _steady_draft(target: PreTrainedModel, drafter: Any, rows: int) -> Measured:
    timings = _time_draft(target, drafter, rows)
    is_steady = timings.is_steady
    return Measured(_draft_numbers(timings.medians() if is_steady else timings.minima()), is_steady)


def _are_credible(verify: Mapping[int, float]) -> bool:
    """Whether a target's forward grows with the number of tokens as forwards do."""
    some, many = (8, 32) if {8, 32} <= verify.keys() else (2, 4)
    growth = verify[some] / verify[1]
    return _LEAST_GROWTH <= growth <= _MOST_GROWTH * some and verify[many] >= _LEAST_GROWTH * verify[some]


@torch.no_grad()
def _time_verify(target: PreTrainedModel, sizes: Iterable[int], time_limit: float, rows: int) -> Timings[int]:
    target = _as_verified(target)
    decoder, head = target.get_decoder(), find_head(target)
    cache = TreeCache(target.config.get_text_config(decoder=True).num_hidden_layers, CONTEXT + max(sizes))
    decoder(input_ids=_ordinary_ids(target, CONTEXT), cache=cache, use_cache=True)
    cache.select([0] * rows, [CONTEXT], remember=False)  # the same text in every row, read once

    device, windows = _device_of(target), LayerWindows.of(target.config.get_text_config(decoder=True))

    def forward(tokens: int) -> None:
        cache.go_on_after([CONTEXT])
        ids, mask = _ordinary_ids(target, tokens, rows), None
        if tokens > 1:  # a round's mask, which attention treats differently from none
            trees = TreeBatch.of([DraftTree.chain(row) for row in ids])
            mask = tree_attention_mask(trees, [CONTEXT] * rows, None, windows, target.dtype, device)
        head(decoder(input_ids=ids, attention_mask=mask, cache=cache, use_cache=True)[0])

    forward(1)  # the first step pays for kernels and memory that later ones find ready
    return _time({n: partial(forward, n) for n in sizes}, _device_of(target), time_limit)


@torch.no_grad()
def _time_draft(target: PreTrainedModel, drafter: Any, batch: int = 1) -> Timings[Any]:
    """Proposing, by levels and width, and taking in accepted rows, for `batch` rows at once."""
    drafting, features = _drafting(target, drafter, batch)

    def propose(levels: int, width: int) -> None:
        drafting.propose([DraftBudget(levels, width, levels * width + 1)] * batch, temperature=None)

    runs: dict[Any, Callable[[], Any]] = {
        (levels, width): partial(propose, levels, width) for width in _WIDTHS for levels in (1, _LEVELS)
    }
    rows = 3

    def extend() -> None:
        drafting.follow([features[:, :rows]] * batch, [_ordinary_ids(target, rows)] * batch)
        drafting.catch_up()

    runs["extend"] = extend
    if any(is_compiled(module) for module in drafter.modules()):
        for run in runs.values():
            run()  # compiling is no cost of a round
    return _time(runs, _device_of(target), _TIME_LIMIT)


def _draft_numbers(seconds: Mapping[Any, float]) -> dict[int, float]:
    """Seconds of a first level (key 0) and of one more level by width (other keys)."""
    per_level = {w: max(seconds[_LEVELS, w] - seconds[1, w], _NOTHING) / (_LEVELS - 1) for w in _WIDTHS}
    return {0: seconds["extend"] + seconds[1, _WIDTHS[-1]], **per_level}


def _drafting(target: PreTrainedModel, drafter: Any, batch: int) -> tuple[Drafting, torch.Tensor]:
    """A drafter after `batch` prompts of `CONTEXT` tokens with random features, which are returned too."""
    ids = _ordinary_ids(target, CONTEXT)
    embeds = target.get_input_embeddings()(ids)
    width = embeds.shape[-1] * len(drafter.feature_layers_of(target) or [None])
    generator = torch.Generator().manual_seed(0)  # the global random state belongs to the request
    features = torch.randn(1, CONTEXT, width, generator=generator).to(embeds)
    prompts, tokens = [TargetPrompt(ids, embeds, features)] * batch, [ids[:, -1:]] * batch
    drafting = Drafting(drafter, prompts, tokens, drafter.bind(target))
    drafting.read_prompts()
    return drafting, features


def _as_verified(target: PreTrainedModel) -> PreTrainedModel:
    """The target as a request runs it, but uncompiled: measuring shall compile nothing."""
    if any(map(is_compiled, target.modules())):
        return uncompiled(target)
    return fast_for_few_rows(target)


def _ordinary_ids(target: PreTrainedModel, count: int, rows: int = 1) -> torch.Tensor:
    """`int64 (rows, count)` token ids of text: no placeholder of an image or a video among them."""
    placeholders = {getattr(target.config, f"{name}_token_id", None) for name in ("image", "video", "audio")}
    vocab_size = target.config.get_text_config(decoder=True).vocab_size
    text = [token for token in range(min(vocab_size, 512)) if token not in placeholders]
    return torch.tensor([[text[7 * i % len(text)] for i in range(count)]] * rows, device=_device_of(target))


def _device_of(target: PreTrainedModel) -> torch.device:
    return input_device(next(target.parameters()))


def _time(runs: Mapping[Any, Callable[[], Any]], device: torch.device, limit: float) -> Timings[Any]:
    """Every run once, if it is essential, and again as often as the limit allows."""
    deadline = time.perf_counter() + limit

    def is_wanted(repetition: int, position: int, name: Any) -> bool:
        is_essential = position < len(ESSENTIAL_SIZES) or not isinstance(name, int)
        return (repetition == 0 and is_essential) or time.perf_counter() < deadline

    return take_turns(runs, device, _REPETITIONS, is_wanted)


def _combine(verify: Mapping[int, float], draft: Mapping[int, float]) -> ForwardCosts:
    levels = {width: seconds for width, seconds in draft.items() if width > 0}
    points = monotonic(verify)
    overhead = _OVERHEAD_SHARE * points[0][1]  # not of `verify[1]`, which may have been another program's time
    return ForwardCosts(verify=points, first_level=draft[0], level=monotonic(levels), overhead=overhead)


def monotonic(points: Mapping[int, float]) -> Points:
    """Sorted by size. Noise only ever adds time, so a size costs at most what any larger one was seen to cost."""
    grid: list[tuple[int, float]] = []
    for size in sorted(points, reverse=True):
        grid.append((size, min(points[size], grid[-1][1]) if grid else points[size]))
    return tuple(reversed(grid))


def _interpolate(points: Points, size: int) -> float:
    """Linear between grid points, and on along the last two beyond the grid."""
    if len(points) == 1:
        return points[0][1]
    upper = next((i for i, (at, _) in enumerate(points) if at >= size), len(points) - 1)
    (x0, y0), (x1, y1) = points[max(upper, 1) - 1], points[max(upper, 1)]
    return y0 + (y1 - y0) * (size - x0) / (x1 - x0)
