"""Draft budgets as people write them: `"depth=8,top_k=2"` become arguments of `generate`.

Reads text; what a budget may hold is checked by `generate`.
"""

from collections.abc import Callable
from typing import Any

_FIELDS: dict[str, Callable[[str], Any]] = {"depth": int, "top_k": int, "total_tokens": int, "mode": str}


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
            raise ValueError(f"budget {text!r}: write name=value, comma between, names {names}") from None
    return arguments
