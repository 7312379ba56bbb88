"""The draft vocabulary: what the target says most, then the lowest other ids."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from hf_mmspec.training.learning.vocabulary import draft_vocabulary

answers = st.lists(st.lists(st.integers(0, 59), max_size=20), max_size=5)


def test_the_most_frequent_tokens_and_the_lowest_others():
    said = [[50, 7, 50, 33], [33, 50]]
    assert draft_vocabulary(said, 2, 60).tolist() == [33, 50]
    assert draft_vocabulary(said, 6, 60).tolist() == [0, 1, 2, 7, 33, 50]
    assert draft_vocabulary([], 3, 60).tolist() == [0, 1, 2]


@given(answers, st.integers(1, 80))
def test_properties(said, size):
    ids = draft_vocabulary(said, size, 60).tolist()
    counts = Counter(token for answer in said for token in answer)
    assert len(ids) == min(size, 60)
    assert ids == sorted(set(ids))
    assert all(0 <= token < 60 for token in ids)
    left_out = [counts[token] for token in counts if token not in ids]
    assert not left_out or max(left_out) <= min(counts[token] for token in ids)
