"""Compiled drafters: the drafts of uncompiled ones, and few compiled graphs."""

import pytest
import torch
from torch._dynamo.utils import counters

from hf_mmspec.modeling import Eagle3Drafter, FlashDrafter, ViSpecDrafter, fixed_rows
from tests.slow_parameters import slow

from . import tiny
from .compiling import EAGER, compile_forward, forgetting_graphs, graphs
from .test_lossless_greedy import SHAPES, assert_same, run


@pytest.fixture(autouse=True)
def fresh_dynamo():
    yield from forgetting_graphs()


@pytest.mark.parametrize("family", [ViSpecDrafter, Eagle3Drafter, FlashDrafter])
def test_compiled_drafters(family):
    """Same drafts, few graphs: steps of 1, up to 4 and up to 16 rows."""
    model = tiny.llava()
    torch.manual_seed(0)
    own = {"feature_layers": [0, 1]} if family is Eagle3Drafter else {}
    drafter = family.from_target(model, initializer_range=0.3, **own)
    requests = [(seed, shape) for seed, shape in enumerate(("narrow", "chain", "wide", "narrow"))]

    def answers():
        return [
            run(model, tiny.llava_prompt(seed, seed % 3), assistant_model=drafter, **SHAPES[shape])
            for seed, shape in requests
        ]

    expected = answers()
    drafter.compile(**EAGER)
    for (ours, stream), (theirs, their_stream) in zip(answers(), expected, strict=True):
        assert stream == their_stream
        assert ours.speculation.accepted == theirs.speculation.accepted
    assert 0 < graphs() <= 4
    assert not counters["graph_break"]


def test_a_wrapped_drafter_and_a_compiled_target_together():
    plain, model, inputs = tiny.qwen(), tiny.qwen(), tiny.qwen_prompt(2, 1)
    compile_forward(model, **EAGER)
    drafter = ViSpecDrafter.from_target(plain, initializer_range=0.3)
    expected = run(plain, inputs, assistant_model=drafter, **SHAPES["narrow"])
    drafter.compile(**EAGER)
    actual = run(model, inputs, assistant_model=torch.compile(drafter, **EAGER), **SHAPES["narrow"])
    assert_same(expected, actual, "both")
    assert actual[0].speculation.accepted == expected[0].speculation.accepted


@pytest.mark.parametrize("smallest, more, new_tokens", [(32, 8, 40), slow(256, 64, 300)])
def test_more_stable_rows_than_a_compiled_drafter_had_room_for(smallest, more, new_tokens, monkeypatch):
    """The drafter's buffer, at first of `smallest` columns or `more` than the prompt's, grows between steps and keeps
    what is in it."""
    model, grown, with_room = tiny.llava(), [], fixed_rows.with_room
    drafter = ViSpecDrafter.from_target(model, initializer_range=0.3)
    new_cache = drafter._new_cache

    def note(buffer, used, room):
        grown.append(used > 0)
        return with_room(buffer, used, room)

    monkeypatch.setattr(fixed_rows, "_SMALLEST_CACHE", smallest)
    monkeypatch.setattr(fixed_rows, "with_room", note)
    monkeypatch.setattr(drafter, "_new_cache", lambda capacity: new_cache(capacity - 256 + more))
    inputs = tiny.llava_prompt(1)
    request = dict(max_new_tokens=new_tokens, eos_token_id=1, assistant_model=drafter, **SHAPES["chain"])
    expected = run(model, inputs, **request)
    drafter.compile(**EAGER)
    assert run(model, inputs, **request)[0].speculation.accepted == expected[0].speculation.accepted
    assert any(grown)
