"""What keeping accepted rows is worth: one drafter, both ways, on the same prompts.

Its border: it trains nothing and knows no recipe.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from hf_mmspec.data import Conversation
from hf_mmspec.modeling import Drafter
from hf_mmspec.modeling.configuration_autoregressive import ACCEPTED_ROWS

from .taking_turns import measure


def measure_modes(
    model: Any,
    processor: Any,
    drafter: Drafter,
    conversations: Sequence[Conversation],
    max_new_tokens: int = 200,
    repetitions: int = 3,
    **budget: Any,
) -> dict[str, dict[str, float]]:
    """By way of drafting (`AutoregressiveConfig.accepted_rows`) what `measure` finds.

    Args:
        drafter: in the target's dtype, on its device; its `accepted_rows` is left as the last way.
    """

    def as_mode(mode: str) -> Drafter:
        drafter.config.accepted_rows = mode
        return drafter

    ways: dict[str, Callable[[], Drafter]] = {mode: partial(as_mode, mode) for mode in ACCEPTED_ROWS}
    return measure(model, processor, ways, conversations, max_new_tokens, repetitions, **budget)
