"""Which slots carry loss, and on what: answers only, what the drafter can say, two tokens on."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_mmspec.training.learning.collator import IGNORED, collate, first_slots, supervised_at
from tests.generation import tiny
from tests.training.making import record

LONG, SHORT = record(30, 20, ((4, 12), (14, 16))), record(18, 10, (), seed=1)


def only(*tokens):
    return lambda ids: torch.isin(ids, torch.tensor(tokens))


def supervised(batch, row=0, step=0):
    return supervised_at(batch["labels"], step)[row].nonzero()[:, 0].tolist()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 12), st.integers(2, 12)), min_size=1, max_size=4))
def test_labels_are_the_answers_tokens_two_on(shapes):
    records = [record(p + a, p, (), seed=i) for i, (p, a) in enumerate(shapes)]
    labels = collate(records)["labels"]
    for row, each in zip(labels, records, strict=True):
        found = {slot + 2: int(row[slot]) for slot in (row != IGNORED).nonzero()[:, 0].tolist()}
        # all tokens of the answer but its first, which the prefill gives and nobody drafts
        assert found == {i: int(each.ids[i]) for i in range(each.prompt_length + 1, len(each.ids))}


def test_a_batch():
    batch = collate([LONG, SHORT])
    assert batch["input_ids"].shape == (2, 29)
    assert batch["features"].shape == (2, 29, tiny.HIDDEN)
    assert torch.equal(batch["input_ids"][0], LONG.ids[:-1])
    assert torch.equal(batch["features"][1, :17], SHORT.features)
    assert batch["features"][1, 17:].abs().sum() == 0
    assert batch["attention_mask"].sum(1).tolist() == [29, 17]
    assert batch["visual_spans"] == [[(4, 12), (14, 16)], []]
    assert torch.equal(batch["image_embeds"], LONG.image_embeds)
    assert "states" not in batch
    assert first_slots(batch["labels"]).tolist() == [19, 9]
    assert batch["shift_labels"] is batch["labels"]  # or Trainer would not count the first column


def test_a_batch_moves_as_a_whole():
    there = collate([LONG, SHORT], device=torch.device("meta"))
    here = collate([LONG, SHORT])
    for name, value in here.items():
        if isinstance(value, torch.Tensor):
            assert there[name].device.type == "meta" and there[name].shape == value.shape, name
        else:
            assert there[name] == value, name
    assert there["shift_labels"] is there["labels"]


def test_states_apart_from_features():
    with_taps = record(taps=True)
    batch = collate([with_taps, record(20, 12, ((2, 4),), taps=True)])
    assert batch["features"].shape == (2, 29, 3 * tiny.HIDDEN)
    assert torch.equal(batch["states"][0], with_taps.states)


def test_unrolled_passes_start_inside_the_answer():
    batch = collate([LONG, SHORT])
    assert supervised(batch) == list(range(19, 28))
    assert supervised(batch, step=1) == list(range(20, 28))
    assert supervised(batch, row=1, step=3) == list(range(12, 16))
    assert supervised(batch, step=9) == []
    assert supervised(batch, step=100) == []


def test_unsayable_tokens_and_the_paths_through_them_are_masked():
    """Token 24 cannot be said: slot 22 has no loss, and nothing is drafted behind it in the passes to come."""
    known = set(LONG.ids.tolist()) - {int(LONG.ids[24])}
    assert int(LONG.ids[24]) not in [*LONG.ids[21:24].tolist(), *LONG.ids[25:].tolist()]
    batch = collate([LONG], only(*known))
    assert batch["labels"][0, 22] == IGNORED
    assert supervised(batch) == [19, 20, 21, 23, 24, 25, 26, 27]
    assert supervised(batch, step=1) == [20, 21, 24, 25, 26, 27]
    assert supervised(batch, step=2) == [21, 25, 26, 27]
    assert supervised(batch, step=4) == [27]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=12), st.integers(0, 5))
def test_a_pass_asks_for_a_whole_path(has_loss, step):
    labels = torch.where(torch.tensor([has_loss]), 5, IGNORED)
    expected = [j - step >= 0 and all(has_loss[j - step : j + 1]) for j in range(len(has_loss))]
    assert supervised_at(labels, step)[0].tolist() == expected


@pytest.mark.parametrize(
    "records, knows",
    [([record(13, 12, ())], None), ([LONG, SHORT], lambda ids: torch.zeros_like(ids, dtype=torch.bool))],
    ids=["an answer of one token", "nothing sayable"],
)
def test_an_all_zero_mask_is_refused(records, knows):
    with pytest.raises(ValueError, match="all zero"):
        collate(records, knows)
