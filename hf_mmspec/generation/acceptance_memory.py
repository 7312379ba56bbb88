"""What requests learnt about a drafter, for the next ones: the one place where it is handed back.

Kept with the drafter and the target as they are in this process, never on disk: a file cannot tell trained weights
from untrained ones of the same config. Both may go at any time, and their entries go with them.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from weakref import WeakKeyDictionary

from transformers import PreTrainedModel

from .budget import Acceptance
from .learned_acceptance import LearnedAcceptance

# greedy targets; targets that sample, checking deterministic drafts; the same checking chains that were drawn. What
# one of them accepts says little about another.
Kind = Literal["greedy", "sampled", "drawn"]
# A request's rates count as much as the remembered ones after so many trials.
_TRIALS = 40


@dataclass(frozen=True)
class Experience:
    """What the next request starts from.

    Args:
        acceptance: the rates so far.
        trust, waited: see `Switch`.
    """

    acceptance: Acceptance
    trust: int = 0
    waited: float = 0.0


_experience: WeakKeyDictionary[PreTrainedModel, WeakKeyDictionary[PreTrainedModel, dict[str, Experience]]] = (
    WeakKeyDictionary()
)
_lock = threading.Lock()


def experience_with(target: PreTrainedModel, drafter: PreTrainedModel, kind: Kind) -> Experience:
    """What is known of the pair: from earlier requests, else from the drafter's config, else a prior."""
    with _lock:
        known = _experience.get(drafter, {}).get(target, {}).get(kind)
    return known or Experience(Acceptance.of(drafter))


def hand_back(
    target: PreTrainedModel,
    drafter: PreTrainedModel,
    kind: Kind,
    learned: LearnedAcceptance,
    trust: int,
    waited: float = 0.0,
) -> None:
    """Keep what a request learnt, for requests of the same kind with the same models."""
    rates = learned.acceptance.by_rank
    share = learned.trials / (learned.trials + _TRIALS)
    mixed = tuple(_mix(old, new, share) for old, new in zip(learned.start.by_rank, rates, strict=True))
    with _lock:
        kinds = _experience.setdefault(drafter, WeakKeyDictionary()).setdefault(target, {})
        kinds[kind] = Experience(Acceptance(mixed, learned.start.max_levels), trust, waited)


def forget_experience() -> None:
    """Start again from what the drafters' configs say."""
    with _lock:
        _experience.clear()


def _mix(old: Sequence[float], new: Sequence[float], share: float) -> tuple[float, ...]:
    return tuple((1 - share) * before + share * now for before, now in zip(old, new, strict=True))
