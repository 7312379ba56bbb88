"""The fast dtype is the one that is faster on a quiet machine, also where the machine is busy while it is asked."""

import pytest
import torch

from hf_mmspec.demo.model import fast_dtype as module
from hf_mmspec.generation import steadiness

# milliseconds of products by rows: with AMX the fast dtype is bfloat16
AMX = {torch.bfloat16: {1: 1.0, 8: 1.2, 32: 2.0}, torch.float32: {1: 2.0, 8: 9.0, 32: 20.0}}
# about what one thread takes of a processor without units for bfloat16: few rows come out either way
NO_UNITS = {torch.bfloat16: {1: 3.8, 8: 14.2, 32: 44.0}, torch.float32: {1: 3.3, 8: 15.7, 32: 18.8}}


class PaperMachine:
    """A clock that products move forward; `load(i)` is how much longer the i-th takes because of other programs."""

    def __init__(self, monkeypatch, load, costs=AMX):
        self.now, self.busy, self.products, self._load, self._costs = 0.0, 0.0, 0, load, costs
        monkeypatch.setattr(module, "_product", lambda dtype, rows: lambda: self.multiply(dtype, rows))
        monkeypatch.setattr(steadiness.time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(steadiness.time, "thread_time", lambda: self.busy)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        module._measured.cache_clear()

    def multiply(self, dtype, rows):
        seconds = self._costs[dtype][rows] / 1000
        self.now += seconds * self._load(self.products)
        self.busy += seconds
        self.products += 1


@pytest.fixture(autouse=True)
def forgets_afterwards():
    yield
    module._measured.cache_clear()


def test_a_quiet_machine_is_asked_once(monkeypatch):
    machine = PaperMachine(monkeypatch, lambda i: 1.0)
    assert module.fast_dtype() is module.fast_dtype() is torch.bfloat16
    assert machine.products == 8 * 6


def test_a_machine_that_is_busy_for_a_moment_is_asked_again_at_once(monkeypatch):
    machine = PaperMachine(monkeypatch, lambda i: 40.0 if i < 48 else 1.0)
    assert module.fast_dtype() is module.fast_dtype() is torch.bfloat16
    assert machine.products == 2 * 48


def test_what_a_busy_machine_said_is_not_kept(monkeypatch):
    machine = PaperMachine(monkeypatch, lambda i: 40.0 if i % 7 else 1.0)
    assert module.fast_dtype() is torch.bfloat16
    asked = machine.products
    module.fast_dtype()
    assert machine.products == 2 * asked == 2 * 3 * 48


def test_work_that_comes_and_goes_does_not_favour_the_slow_dtype(monkeypatch):
    """The first half of all products is slowed down: taking turns, both dtypes have quiet repeats."""
    PaperMachine(monkeypatch, lambda i: 60.0 if i < 24 else 1.0)
    assert module.fast_dtype() is torch.bfloat16


def test_bfloat16_that_is_as_fast_in_few_rows_only_is_not_the_fast_dtype(monkeypatch):
    PaperMachine(monkeypatch, lambda i: 1.0, NO_UNITS)
    assert module.fast_dtype() is torch.float32


def test_the_real_machine_answers():
    assert module.fast_dtype() in (torch.bfloat16, torch.float32, torch.float16)
