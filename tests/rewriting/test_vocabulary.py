"""Bytes of tokens, and where they leave a JSON string."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_mmspec.rewriting.instruction import rewrite_json
from hf_mmspec.rewriting.vocabulary import StringState, Vocabulary


@pytest.fixture(scope="module")
def vocabulary(processor):
    return Vocabulary(processor.tokenizer, 260, 1)


@given(st.text(max_size=30), st.integers(0, 200))
@settings(max_examples=60, deadline=None)
def test_state_follows_a_text_wherever_it_is_cut(text, cut):
    data = rewrite_json(text, "edit", "1:1", text).encode("utf-8", "ignore")
    cut = min(cut, len(data))
    state = StringState().after(data[:cut])
    assert state.after(data[cut:]) == StringState().after(data)
    try:
        data[:cut].decode()
    except UnicodeDecodeError:
        assert state.bytes_to_close > 0


@pytest.mark.parametrize(
    ("data", "quotes", "pending", "to_close"),
    [
        (b'{"a": "x', 3, 0, 0),
        (b'"\\', 1, 4, 1),
        (b'"\\"', 1, 0, 0),
        (b'"\\\\"', 2, 0, 0),
        ("é".encode()[:1], 0, 1, 1),
        ("猫".encode()[:1], 0, 2, 2),
        ("😀".encode()[:1], 0, 3, 3),
        ("😀".encode(), 0, 0, 0),
    ],
)
def test_states(data, quotes, pending, to_close):
    state = StringState().after(data)
    assert state == (quotes, pending) and state.bytes_to_close == to_close


def test_vocabulary_writes_and_reads_bytes(vocabulary):
    for text in ('{"a": "é"}', "猫😀", " \\n"):
        assert vocabulary.bytes_of(vocabulary.ids_of(text.encode())) == text.encode()
    assert vocabulary.only(7).nonzero().flatten().tolist() == [7]
    assert [vocabulary.bytes_of([token]) for token in vocabulary.closing.tolist()] == [b'"']


def test_tokens_that_can_be_closed_in_time(vocabulary):
    everything = ~vocabulary.only(0)

    def fits(data, pending, count):
        (token,) = {vocabulary.ids_of(data)[0]}
        return bool(vocabulary.closable_within(everything, pending, count)[token])

    assert fits(b"x", 0, 0) and fits(b'"', 0, 0)
    assert not fits(b"\\", 0, 0) and fits(b"\\", 0, 1)
    lead = "😀".encode()[:1]
    assert not fits(lead, 0, 2) and fits(lead, 0, 3)
    assert fits(b'"', 4, 0) and fits(b"n", 4, 0)
    follower = "😀".encode()[1:2]
    assert not fits(follower, 3, 1) and fits(follower, 3, 2) and fits(follower, 1, 0)


def test_a_slow_tokenizer_is_refused():
    class Slow:
        def __len__(self):
            return 10

    with pytest.raises(ValueError, match="fast"):
        Vocabulary(Slow(), 10, 1)
