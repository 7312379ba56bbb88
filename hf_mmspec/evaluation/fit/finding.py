"""One line of a check: what was looked at, what was found, and what to do about it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

OK, WARN, FAIL = "ok", "warn", "FAIL"


@dataclass(frozen=True)
class Finding:
    """What was found.

    Args:
        check: what was looked at, in a word or two.
        found: in a sentence.
        verdict: `"ok"`, `"warn"` (works, perhaps slowly) or `"FAIL"` (does not fit).
        advice: what to do, where something is to be done.
    """

    check: str
    found: str
    verdict: str = OK
    advice: str = ""


def judged(check: str, found: str, test: Callable[[], Any]) -> Finding:
    """FAIL with its words where `test` raises a ValueError, else ok."""
    try:
        test()
    except ValueError as error:
        return Finding(check, found, FAIL, str(error))
    return Finding(check, found)
