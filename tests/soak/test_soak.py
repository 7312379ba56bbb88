"""A small `python -m tests.soak`; and that growth, a changed answer and a disturbed thread are seen."""

import json
import random

import pytest
import torch

from tests.slow_parameters import slow

from . import long_run, memory, mixed
from .memory import Held


@pytest.fixture(scope="module")
def worlds():
    """Two: building one takes seconds, and what was done in it changes no answer, as these tests show."""
    return mixed.World(), mixed.World()


def test_every_kind_of_request(worlds):
    """Each checks itself, and gives the same again in another world."""
    for kind in set(mixed.ALONE + mixed.IN_THREADS + mixed.STREAMS):
        first, again = (kind(world, random.Random(3), 3) for world in worlds)
        assert json.dumps(first) == json.dumps(again), kind


@pytest.mark.parametrize("threads", [2, slow(3)])
def test_threads_do_not_disturb_one_another(worlds, threads):
    run = long_run.Run(memory=[Held(1, 1)])
    more = [mixed.World() for _ in range(threads - len(worlds))]
    long_run.side_by_side(run, [*worlds, *more], each=3, seed=0)
    assert run.is_good and run.threads == threads


def test_a_fresh_process_that_answers_otherwise_is_seen(worlds, monkeypatch):
    monkeypatch.setattr(long_run, "_in_a_fresh_process", lambda numbers, seed: dict.fromkeys(numbers, "[]"))
    run = long_run.soak(4, 0, samples=2, tell=lambda done, held: None, world=worlds[0], points=4)
    assert sum(run.kinds.values()) == 4 and run.repeated == 2
    assert len(run.differences) == 2 and not run.is_good


def test_memory_that_grows_is_seen():
    before = memory.held()
    kept = [torch.zeros(2**20) for _ in range(40)]
    after = memory.held()
    assert after.tensors == before.tensors + len(kept)
    assert memory.growth([before, after, before]) > 0.5 * 40 * 2**22 / before.resident
    assert not long_run.Run(memory=[Held(100, 1), Held(103, 1)]).is_good
    assert long_run.Run(memory=[Held(100, 1), Held(101, 1)]).is_good
