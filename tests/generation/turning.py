"""Makes targets of any size multiply a few rows the other way round, whatever this machine does faster."""

from contextlib import contextmanager

import pytest

from hf_mmspec.generation import few_rows
from hf_mmspec.generation.cost_cache import Measured


@contextmanager
def turned(**shares):
    """As if the transposed product had been measured to take so much of the usual time, by rows (`rows_8=0.5`)."""
    measured = {size: shares.get(f"rows_{size}", 0.5) for size in few_rows.SIZES}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(few_rows, "_LEAST_WEIGHTS", 0)
        patch.setattr(few_rows, "_measure", lambda layers: Measured(measured, is_steady=False))
        patch.setattr(few_rows, "remembered", lambda key, measure, needed: measure())
        yield
