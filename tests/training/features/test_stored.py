"""Hidden states through bytes and back, exactly."""

import math

import pytest
import torch

from hf_mmspec.training.answers.store import STATES
from hf_mmspec.training.features.stored import StatesFormat, from_columns, to_columns
from tests.generation import tiny
from tests.training.making import TAPS, record

SPANS = {"none": (), "one": ((2, 6),), "adjacent": ((2, 6), (6, 9)), "several": ((0, 1), (3, 5), (9, 14))}


def row(each):
    return {"input_ids": each.ids.tolist(), "prompt_length": each.prompt_length, "task": each.task, **to_columns(each)}


def as_dtype(each, dtype):
    each.features, each.image_embeds = each.features.to(dtype), each.image_embeds.to(dtype)
    each.states = None if each.states is None else each.states.to(dtype)
    return each


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("taps", [False, True])
@pytest.mark.parametrize("spans", SPANS.values(), ids=SPANS)
def test_round_trip(spans, taps, dtype):
    before = as_dtype(record(spans=spans, taps=taps), dtype)
    before.features[0, 0], before.features[1, 1] = math.inf, -0.0  # bytes, not numbers
    kept = StatesFormat.of(TAPS if taps else None, dtype, tiny.HIDDEN)
    after = from_columns(row(before), StatesFormat(**kept.as_dict()))
    for name in ("ids", "features", "image_embeds", "states"):
        found, expected = getattr(after, name), getattr(before, name)
        if expected is None:
            assert found is None
            continue
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        assert torch.equal(found.view(torch.uint8), expected.contiguous().view(torch.uint8))
    assert (after.prompt_length, after.spans, after.task) == (before.prompt_length, before.spans, before.task)


def test_a_slice_of_a_batch_is_written_without_the_rest():
    states = torch.randn(2, 40, tiny.HIDDEN)
    before = record()
    before.features = states[1, :29]
    assert len(to_columns(before)["features"]) == 29 * tiny.HIDDEN * 4
    assert torch.equal(from_columns(row(before), StatesFormat(None, "float32", tiny.HIDDEN)).features, states[1, :29])


@pytest.mark.parametrize("taps", [False, True])
def test_what_a_token_costs(taps):
    kept = StatesFormat.of(TAPS if taps else None, torch.bfloat16, tiny.HIDDEN)
    columns = to_columns(as_dtype(record(spans=(), taps=taps), torch.bfloat16))
    assert set(columns) == set(STATES)
    size = sum(len(columns[name] or b"") for name in ("features", "states", "image_embeds"))
    assert size == 29 * kept.bytes_per_token
    assert kept.feature_size == tiny.HIDDEN * (3 if taps else 1)
