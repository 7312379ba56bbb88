"""Rotary tables stay precise, however a drafter gets its dtype."""

import pytest
import torch

from tests.modeling import tiny


@pytest.mark.parametrize(
    "cast", [lambda d: d.to(torch.bfloat16), lambda d: d.half(), lambda d: d.to("cpu", torch.half)]
)
def test_casts_leave_rotary_tables_alone(cast):
    precise = tiny.drafter()
    cast_down = cast(tiny.drafter())
    assert cast_down.dtype != torch.float32
    positions, x = torch.tensor([[3, 20000]]), torch.zeros(1)
    for ours, theirs in zip(cast_down.rotary_emb(x, positions), precise.rotary_emb(x, positions), strict=True):
        assert torch.equal(ours, theirs)


def test_loading_and_casting_give_the_same_drafter(tmp_path):
    drafter = tiny.drafter()
    drafter.save_pretrained(tmp_path)
    loaded = type(drafter).from_pretrained(tmp_path, dtype=torch.bfloat16)
    buffers = dict(drafter.to(torch.bfloat16).named_buffers())
    assert buffers.keys() == dict(loaded.named_buffers()).keys()
    for name, buffer in loaded.named_buffers():
        assert buffer.dtype == buffers[name].dtype and torch.equal(buffer, buffers[name]), name
