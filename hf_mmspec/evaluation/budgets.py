"""Draft budgets as people write them: `"depth=8,top_k=2"` become arguments of `generate`.

Reads text; what a budget may hold is `DraftBudget`'s to say.
"""

from collections.abc import Callable, Sequence
from typing import Any

GRID = "grid"
# Levels that a tree of so many nodes has where it is fixed: enough for the answers that are easiest to draft.
_LEVELS = {8: 5, 16: 8, 32: 12}
_CHAINS = (8, 16)  # nodes: no answer keeps more than a dozen drafts often enough for longer ones
_CHILDREN = (2, 3, 4)

_FIELDS: dict[str, Callable[[str], Any]] = {"depth": int, "top_k": int, "total_tokens": int, "mode": str}


def expand_budgets(texts: Sequence[str]) -> tuple[str, ...]:
    """The budgets, with `"grid"` replaced by chains and trees with 2 to 4 children, of 8 to 32 nodes: each with all of
    its parts given, so that every round drafts all of it, and with its levels left open, so that thresholds end a
    round where the drafter is unsure."""
    return tuple(dict.fromkeys(each for text in texts for each in (_grid() if text == GRID else [text])))


def _grid() -> list[str]:
    shapes = [(size - 1, 1, size) for size in _CHAINS]
    shapes += [(levels, children, size) for size, levels in _LEVELS.items() for children in _CHILDREN]
    open_ = [f"top_k={children},total_tokens={size}" for _, children, size in shapes]
    return [*(f"depth={levels},{rest}" for (levels, _, _), rest in zip(shapes, open_, strict=True)), *open_]


def parse_budget(text: str) -> dict[str, Any]:
    """Arguments of `generate` for `"depth=8,top_k=2"`; what is not named is chosen as usual.

    Raises:
        ValueError: a name is unknown or a number is none.
    """
    arguments = {}
    for part in text.split(","):
        name, _, value = part.partition("=")
        try:
            arguments[f"draft_{name}"] = _FIELDS[name](value)
        except (KeyError, ValueError):
            names = ", ".join(_FIELDS)
            raise ValueError(f"budget {text!r}: write {GRID}, or name=value, comma between, names {names}") from None
    return arguments


def check_budget(text: str) -> None:
    """Raises ValueError where `generate` would refuse the budget, or it cannot be read."""
    parts = {name.removeprefix("draft_"): value for name, value in parse_budget(text).items()}
    from hf_mmspec.modeling import DraftBudget  # imports torch: a budget that cannot be read answers at once

    DraftBudget(**{"depth": 1, "top_k": 1, "total_tokens": 1, **parts})
