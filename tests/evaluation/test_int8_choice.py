"""Drafters are rounded to int8 only where that is faster; which it is depends on the machine, so times are made up."""

import pytest
import torch
from torch import nn

from hf_mmspec.evaluation import int8_choice, loading
from hf_mmspec.evaluation.int8_choice import is_faster_in_int8
from hf_mmspec.generation.steadiness import Sample, Timings
from hf_mmspec.modeling import ViSpecDrafter
from hf_mmspec.modeling.int8_linear import has_int8_weights
from tests.generation import tiny


@pytest.fixture
def seconds(monkeypatch):
    """Times that `take_turns` reports instead of its own; every run is still run."""
    made_up = {}

    def take_turns(runs, device, repetitions):
        timings = Timings(device)
        for name, run in runs.items():
            run()
            timings[name] = [Sample(each, each) for each in made_up[name]]
        return timings

    monkeypatch.setattr(int8_choice, "take_turns", take_turns)
    return made_up


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rounded, is_faster", [([0.5, 3.0], True), ([1.5, 1.5], False)])
def test_the_fastest_repeat_decides(seconds, dtype, rounded, is_faster):
    seconds.update(usual=[1.0, 2.0], rounded=rounded)
    assert is_faster_in_int8(nn.Sequential(nn.Linear(32, 8), nn.Linear(64, 32)).to(dtype)) is is_faster


def test_nothing_to_round():
    assert not is_faster_in_int8(nn.Embedding(3, 4))


@pytest.mark.parametrize("is_faster", [True, False])
def test_a_drafter_is_loaded_as_it_drafts_fastest(tmp_path, monkeypatch, is_faster):
    target = tiny.llava()
    ViSpecDrafter.from_target(target).save_pretrained(tmp_path)
    monkeypatch.setattr(loading, "is_faster_in_int8", lambda drafter: is_faster)
    assert has_int8_weights(loading.load_drafter(str(tmp_path), target)) is is_faster
