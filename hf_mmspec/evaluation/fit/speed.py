"""What drafting promises on this machine: the drafter's recorded acceptance, and what forwards cost here.

Measures costs (a few seconds, cached); answers no prompt.
"""

from transformers import PreTrainedModel

from hf_mmspec.generation.budget import Acceptance, Forecast, forecast
from hf_mmspec.generation.costs import cached_costs
from hf_mmspec.modeling import Drafter

from .finding import WARN, Finding


def expected_speed(drafter: Drafter, target: PreTrainedModel) -> Finding:
    """The line about speed."""
    promise = forecast(cached_costs(target, drafter), Acceptance.of(drafter))
    config = drafter.config
    is_recorded = bool(config.acceptance_by_rank or config.acceptance_by_depth)
    return describe(promise, is_recorded)


def describe(promise: Forecast, acceptance_is_recorded: bool) -> Finding:
    """A forecast in words.

    Args:
        acceptance_is_recorded: whether the drafter's own is known, or a usual one was taken.
    """
    if promise.budget.depth == 0:
        advice = "no tree promises to be faster here, so `generate` decodes without drafting"
        return Finding("expected speed", "1.0 times plain decoding", WARN, advice)
    found = (
        f"about {promise.speedup:.1f} times plain decoding: L {promise.length:.2f}, v {promise.growth:.2f} "
        f"({promise.budget.total_tokens} tokens in a tree of depth {promise.budget.depth})"
    )
    if not acceptance_is_recorded:
        advice = "the drafter records no acceptance, so a usual one was assumed: `mmspec bench` measures"
        return Finding("expected speed", found, WARN, advice)
    return Finding("expected speed", found)
