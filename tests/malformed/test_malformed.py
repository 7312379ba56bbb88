"""Each flaw of `python -m tests.malformed` some times; and that an unclear error, or other tokens, count as wrong."""

from dataclasses import replace

import pytest

from tests.identity.models import Models

from .calls import Call, Outcome, is_right
from .flaws import FLAWS


@pytest.fixture(scope="module")
def models():
    return Models()


@pytest.mark.parametrize("number", range(len(FLAWS)), ids=list(FLAWS))
def test_a_clear_error_or_what_generate_does(models, number):
    call = Call(number)
    ours, stock = call.outcomes(models)
    assert is_right(ours, stock), f"{ours}\n{stock}\n{call.snippet()}"


def test_what_is_right():
    tokens, clear = Outcome([[1, 2]]), Outcome(None, "ValueError", "this is wrong: give another one.", True)
    deep = Outcome(None, "RuntimeError", "The size of tensor a must match that of tensor b")
    assert is_right(tokens, tokens) and is_right(clear, tokens) and is_right(deep, deep)
    assert not is_right(Outcome([[1, 3]]), tokens) and not is_right(tokens, deep) and not is_right(deep, tokens)
    assert not is_right(replace(clear, message="wrong"), tokens)


def test_a_check_that_is_missing_is_seen(models, monkeypatch):
    """And the printed call shows it."""
    number = list(FLAWS).index("a drafter without weights")
    call = Call(number)
    monkeypatch.setattr("hf_mmspec.generation.strategy._check_drafter", lambda *_: None)
    with pytest.raises(AssertionError):
        exec(call.snippet(), {})
    monkeypatch.undo()
    exec(call.snippet(), {})
