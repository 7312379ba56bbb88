"""Makes models of any size multiply a few rows in another way, whatever this machine does faster."""

from contextlib import contextmanager

import pytest

from hf_mmspec.generation import few_rows
from hf_mmspec.generation.cost_cache import Measured

WAYS = ("turned", "reordered")


@contextmanager
def turned(way="turned", **shares):
    """As if that way had been measured to take so much of the usual time, by rows (`rows_8=0.5`), and the other one as
    much as usual."""

    def measure(layers, asked, sizes):
        numbers = {size: shares.get(f"rows_{size}", 0.5) if asked == way else 1.0 for size in sizes}
        return Measured(numbers, is_steady=False)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(few_rows, "_LEAST_WEIGHTS", 0)
        patch.setattr(few_rows, "_measure", measure)
        patch.setattr(few_rows, "remembered", lambda key, measure, needed: measure())
        yield
