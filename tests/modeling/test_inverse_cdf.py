"""Drawing by a running sum: in proportion to the weights, never what has none."""

import pytest
import torch

from hf_mmspec.modeling.inverse_cdf import draw


def test_rows_are_drawn_in_proportion_to_their_own_weights():
    weights = torch.tensor([[0.0, 3.0, 0.0, 1.0, 0.0], [2.0, 0.0, 2.0, 0.0, 4.0]])
    torch.manual_seed(3)
    drawn = draw(weights.repeat_interleave(20_000, dim=0))[:, 0].view(2, -1)
    found = torch.stack([torch.bincount(row, minlength=5) for row in drawn]) / 20_000
    assert torch.equal(found == 0, weights == 0)
    torch.testing.assert_close(found, weights / weights.sum(-1, keepdim=True), atol=0.015, rtol=0)


@pytest.mark.parametrize(("number", "chosen"), [(0.0, 2), (1 - 2**-53, 1)])
def test_the_ends_of_the_numbers_fall_on_entries_that_have_weight(monkeypatch, number, chosen):
    monkeypatch.setattr(torch, "rand", lambda *shape, **kwargs: torch.full(shape, number, dtype=torch.float64))
    assert draw(torch.tensor([[0.0, 0.3, 0.6, 0.0]])).tolist() == [[chosen]]


def test_a_long_tail_keeps_its_share(monkeypatch):
    """In float32 a running sum that has reached 1 does not see 1e-9 any more."""
    weights = torch.cat([torch.ones(1, 1), torch.full((1, 1_000_000), 1e-9)], dim=1)
    monkeypatch.setattr(torch, "rand", lambda *shape, **kwargs: torch.full(shape, 5e-4, dtype=torch.float64))
    assert int(draw(weights)) == pytest.approx(499_500, abs=200)  # 1.001 * 0.9995 = 1.0004995
