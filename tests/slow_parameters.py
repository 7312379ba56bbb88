"""Values of a parametrised test that only `make test-all` tries."""

from collections.abc import Collection, Hashable, Iterable
from typing import Any

import pytest


def slow(*values: Any, id: str | None = None) -> Any:
    """One set of values that is left to `make test-all`."""
    return pytest.param(*values, id=id, marks=pytest.mark.slow)


def others_slow(values: Iterable[Hashable], kept: Collection[Hashable]) -> list[Any]:
    """`values` as parameters, all but the `kept` ones slow; a tuple is a value for each of several parameters."""
    values = list(values)
    unknown = [each for each in kept if each not in values]
    assert not unknown, f"no value of this test: {unknown}"
    return [each if each in kept else slow(*(each if isinstance(each, tuple) else (each,))) for each in values]
