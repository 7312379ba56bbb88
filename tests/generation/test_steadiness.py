"""A measurement says itself whether it can be trusted."""

import pytest
import torch

from hf_mmspec.generation import cost_cache, costs
from hf_mmspec.generation.cost_cache import Measured, remembered, revise
from hf_mmspec.generation.costs import cost_record
from hf_mmspec.generation.steadiness import Sample, Timings, take_turns
from hf_mmspec.modeling import ViSpecDrafter

from .tiny import llava

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def timings(device, *repeats, share=1.0):
    found = Timings(device)
    for name, seconds in enumerate(zip(*repeats, strict=True)):
        found[name] = [Sample(each, share * each) for each in seconds]
    return found


def test_repeats_that_agree_are_steady():
    assert timings(CPU, [1.0, 2.0], [1.05, 2.1], [1.1, 2.0]).is_steady


def test_repeats_that_differ_are_not():
    assert not timings(CPU, [1.0, 2.0], [1.9, 4.0], [2.2, 3.0]).is_steady


def test_one_slow_repeat_spoils_nothing():
    assert timings(CPU, [1.0, 2.0], [9.0, 2.1], [1.02, 2.0]).is_steady


def test_half_a_processor_is_a_busy_machine_even_where_repeats_agree():
    assert not timings(CPU, [1.0, 2.0], [1.0, 2.0], share=0.5).is_steady


def test_a_thread_may_sleep_while_an_accelerator_works():
    assert timings(GPU, [1.0, 2.0], [1.0, 2.0], share=0.1).is_steady


def test_minima_and_medians():
    found = timings(CPU, [1.0, 2.0], [3.0, 4.0], [2.0, 9.0])
    assert found.minima() == {0: 1.0, 1: 2.0} and found.medians() == {0: 2.0, 1: 4.0}


def test_runs_take_turns():
    order = []
    take_turns(
        {name: lambda name=name: order.append(name) for name in "ab"}, CPU, 2, lambda r, p, n: (r, n) != (1, "a")
    )
    assert order == ["a", "b", "b"]


# -- what is kept ----------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(cost_cache, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(cost_cache, "_known", {})
    return tmp_path


class Script:
    """Measurements in turn; counts how many were made."""

    def __init__(self, *measured):
        self.measured, self.calls = measured, 0

    def __call__(self):
        self.calls += 1
        return self.measured[min(self.calls, len(self.measured)) - 1]


BUSY, QUIET = Measured({1: 3.8, 8: 2.5}, is_steady=False), Measured({1: 0.05, 8: 0.06})


def test_an_unsteady_measurement_is_used_but_not_kept_and_made_again_by_the_next_request(folder):
    measure = Script(BUSY, QUIET)
    first = remembered("key", measure, (1, 8))
    assert first.numbers == BUSY.numbers and first.in_doubt and not list(folder.iterdir())
    second = remembered("key", measure, (1, 8))
    assert second.numbers == QUIET.numbers and not second.in_doubt and list(folder.glob("key.json"))
    assert remembered("key", measure, (1, 8)).numbers == QUIET.numbers and measure.calls == 2


def test_a_machine_that_is_always_busy_is_measured_ever_more_rarely(folder):
    measure = Script(BUSY)
    calls = []
    for _ in range(16):
        remembered("key", measure, (1, 8))
        calls.append(measure.calls)
    assert calls == [1, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 4, 4, 4, 4, 5]


def test_a_new_process_after_a_busy_one_measures(folder, monkeypatch):
    remembered("key", Script(BUSY), (1, 8))
    monkeypatch.setattr(cost_cache, "_known", {})
    assert remembered("key", Script(QUIET), (1, 8)).numbers == QUIET.numbers


def test_a_file_that_cannot_be_true_is_measured_again(folder):
    (folder / "key.json").write_text('{"1": 3.8, "8": 2.5, "32": 2.6}')
    measure = Script(Measured({1: 1.0, 8: 1.2, 32: 1.5}))
    assert remembered("key", measure, (1, 8), costs._are_credible).numbers[8] == 1.2 and measure.calls == 1


@pytest.mark.parametrize(
    "eight, thirty_two, credible", [(1.2, 1.5, True), (0.66, 1.5, False), (13, 14, False), (2, 1.5, False)]
)
def test_growth_of_a_forward_that_can_be_true(eight, thirty_two, credible):
    assert costs._are_credible({1: 1.0, 8: eight, 32: thirty_two}) is credible


def test_what_requests_found_replaces_what_was_measured(folder, monkeypatch):
    remembered("key", Script(BUSY), (1, 8))
    revise("key", QUIET.numbers)
    assert remembered("key", Script(), (1, 8)).numbers == QUIET.numbers
    monkeypatch.setattr(cost_cache, "_known", {})  # a new process
    assert remembered("key", Script(), (1, 8)).numbers == QUIET.numbers


def test_small_corrections_are_not_written_one_by_one_but_add_up(folder):
    numbers = {1: 1.0, 8: 1.2}
    remembered("key", Script(Measured(numbers)), (1, 8))
    written = (folder / "key.json").stat().st_mtime_ns
    revise("key", {1: 1.03, 8: 1.2})
    assert (folder / "key.json").stat().st_mtime_ns == written
    revise("key", {1: 1.06, 8: 1.2})
    assert remembered("key", Script(), (1, 8)).numbers == {1: 1.06, 8: 1.2}


def test_costs_of_a_busy_machine_are_in_doubt(folder, monkeypatch):
    monkeypatch.setattr(Timings, "is_steady", False)
    target = llava()
    record = cost_record(target, ViSpecDrafter.from_target(target))
    assert record.in_doubt and not list(folder.iterdir())
    record.revise(record.costs)
    assert len(list(folder.glob("*.json"))) == 2
    monkeypatch.setattr(cost_cache, "_known", {})
    monkeypatch.setattr(costs, "_are_credible", lambda numbers: True)
    assert cost_record(target, ViSpecDrafter.from_target(target)).costs == record.costs
