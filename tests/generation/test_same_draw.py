"""The quick draw: torch's own, number for number, and torch itself where it is not."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_mmspec.generation import same_draw
from hf_mmspec.generation.same_draw import multinomial


def test_this_torch_draws_as_we_think():
    """Else nothing is wrong, but sampled requests are slower: then the file can go."""
    assert same_draw._is_torchs_way()


@given(st.integers(0, 2**31), st.integers(1, 3000), st.floats(0, 0.999), st.sampled_from([0.1, 1.0, 20.0]))
@settings(deadline=None, max_examples=150)
def test_the_same_entry_and_the_same_numbers_afterwards(seed, count, absent, sharpness):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(1, count, generator=generator) * sharpness
    gone = torch.rand(1, count, generator=generator) < absent
    gone[0, seed % count] = False
    weights = scores.masked_fill(gone, -torch.inf).softmax(-1)
    torch.manual_seed(seed)
    expected, state = torch.multinomial(weights, 1), torch.get_rng_state()
    torch.manual_seed(seed)
    found = multinomial(weights)
    assert torch.equal(found, expected) and found.dtype == expected.dtype
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 0.0])
def test_the_same_errors(bad):
    weights = torch.full((1, 5), bad)
    with pytest.raises(RuntimeError) as expected:
        torch.multinomial(weights, 1)
    with pytest.raises(RuntimeError) as found:
        multinomial(weights)
    assert str(found.value) == str(expected.value)


def test_torch_itself_where_it_draws_otherwise(monkeypatch):
    weights, calls = torch.ones(1, 4), []
    monkeypatch.setattr(same_draw, "_is_torchs_way", lambda: False)
    monkeypatch.setattr(same_draw, "_multinomial", lambda weights: calls.append(weights))
    assert multinomial(weights).shape == (1, 1) and not calls


def test_trying_takes_no_numbers_from_the_caller(monkeypatch):
    seeded = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    same_draw._is_torchs_way.cache_clear()
    torch.default_generator.manual_seed(4)
    before = torch.get_rng_state()
    assert same_draw._is_torchs_way() and not seeded
    assert torch.equal(torch.get_rng_state(), before)
