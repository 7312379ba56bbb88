"""The whole stage is planned beforehand: what is seen, when, and beside what."""

import random

import pytest
from accelerate.data_loader import BatchSamplerShard
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import BatchSampler, SequentialSampler

from hf_mmspec.training.learning.order import Entry, steps_of, training_order
from hf_mmspec.training.recipes import RecipeError, Stage

entries = st.lists(
    st.tuples(st.integers(5, 400), st.integers(0, 300)).map(lambda rows: Entry(rows[0] + rows[1], rows[0])),
    min_size=1,
    max_size=40,
)
MIXED = [Entry(20 + i, 20 + i) if i % 2 else Entry(60 + i, 20 + i) for i in range(40)]


def stage(**fields):
    if "epochs" in fields:
        fields["epochs"] = float(fields["epochs"])
    return Stage("s", **{"batch_size": 4, **fields})


@settings(max_examples=60, deadline=None)
@given(entries, st.integers(1, 7), st.integers(1, 3), st.integers(0, 5))
def test_every_record_once_an_epoch(given_entries, batch_size, epochs, seed):
    plan = stage(batch_size=batch_size, epochs=epochs)
    picks = training_order(plan, given_entries, seed)
    steps = steps_of(plan, given_entries)
    assert len(picks) == steps * batch_size
    assert 0 <= len(picks) - epochs * len(given_entries) < batch_size  # the last step is filled up
    times = [sum(pick.index == index for pick in picks) for index in range(len(given_entries))]
    filled_up = len(picks) - epochs * len(given_entries)
    assert min(times) >= epochs
    assert sum(times) - epochs * len(given_entries) == filled_up
    assert all(pick.pictures for pick in picks)


@settings(max_examples=30, deadline=None)
@given(entries, st.integers(0, 5))
def test_the_same_seed_gives_the_same_order(given_entries, seed):
    assert training_order(stage(), given_entries, seed) == training_order(stage(), given_entries, seed)


def test_another_seed_gives_another_order():
    assert training_order(stage(), MIXED, 0) != training_order(stage(), MIXED, 1)
    first, second = (training_order(stage(epochs=2), MIXED, 0)[i : i + 40] for i in (0, 40))
    assert first != second


@pytest.mark.parametrize("kind, expected", [("text", {False}), ("pictures", {True}), ("all", {True, False})])
def test_pools(kind, expected):
    picks = training_order(stage(records=kind), MIXED, 0)
    assert {MIXED[pick.index].has_pictures for pick in picks} == expected
    assert len(picks) == (40 if kind == "all" else 20)


def test_pictures_may_be_cut_out():
    assert not any(pick.pictures for pick in training_order(stage(pictures=False), MIXED, 0))


@pytest.mark.parametrize("kind", ["text", "pictures", "curriculum"])
def test_records_that_the_data_has_not(kind):
    entry = Entry(30, 20) if kind == "text" else Entry(20, 20)
    with pytest.raises(RecipeError, match=f"stage 's'.*{'curriculum' if kind == 'curriculum' else repr(kind)}"):
        training_order(stage(records=kind), [entry] * 5, 0)


@settings(max_examples=30, deadline=None)
@given(entries.filter(lambda found: any(e.has_pictures for e in found)), st.floats(0, 1), st.integers(1, 5))
def test_a_curriculum_begins_with_text_alone(given_entries, text_until, batch_size):
    plan = stage(records="curriculum", text_until=text_until, epochs=4, batch_size=batch_size)
    picks = training_order(plan, given_entries, 0)
    window = 4 * batch_size  # picks are sorted by length within four steps
    alone = int(text_until * len(picks)) - window
    assert not any(pick.pictures for pick in picks[: max(alone, 0)])
    has_text = not all(entry.has_pictures for entry in given_entries)
    for pick in picks:
        assert given_entries[pick.index].has_pictures or not pick.pictures
        if has_text and not pick.pictures:
            assert not given_entries[pick.index].has_pictures


def test_a_curriculums_pictures_become_more_and_more():
    plan = stage(records="curriculum", text_until=0.5, epochs=100)
    picks = training_order(plan, MIXED, 0)
    shares = [sum(pick.pictures for pick in picks[i : i + 500]) / 500 for i in range(2000, 4000, 500)]
    for share, expected in zip(shares, (0.125, 0.375, 0.625, 0.875), strict=True):
        assert share == pytest.approx(expected, abs=0.07)
    assert not any(p.pictures for p in training_order(stage(records="curriculum", text_until=1.0), MIXED, 0))


def test_similar_lengths_are_beside_each_other():
    picks = training_order(stage(batch_size=8, epochs=2), MIXED, 0)

    def padding(order):
        rows = [[MIXED[pick.index].rows for pick in order[i : i + 8]] for i in range(0, len(order), 8)]
        return sum(max(batch) - length for batch in rows for length in batch)

    assert padding(picks) < 0.4 * padding(random.Random(0).sample(picks, len(picks)))
    text = training_order(stage(batch_size=8, pictures=False), MIXED, 0)
    rows = [MIXED[pick.index].text_rows for pick in text]
    assert all(max(rows[i : i + 8]) - min(rows[i : i + 8]) <= 8 for i in range(0, 40, 8))


@pytest.mark.parametrize("processes, accumulate", [(1, 1), (2, 1), (4, 1), (1, 4), (2, 2)])
def test_the_records_of_a_step_do_not_depend_on_who_reads_them(processes, accumulate):
    """As accelerate shares them out: process p takes every so manyth part of a step."""
    plan = stage(batch_size=8)
    picks = training_order(plan, MIXED, 0)
    part = 8 // (processes * accumulate)
    batches = BatchSampler(SequentialSampler(picks), part, drop_last=False)
    shares = [list(BatchSamplerShard(batches, processes, rank)) for rank in range(processes)]
    for step in range(steps_of(plan, MIXED)):
        read = [i for share in shares for batch in share[step * accumulate :][:accumulate] for i in batch]
        assert sorted(read) == list(range(8 * step, 8 * step + 8))
