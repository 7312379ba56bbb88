"""Records by number: from disk and read on the fly they are the same, and so is what is learned from them."""

from dataclasses import replace

import pytest
import torch

from hf_mmspec.modeling import FAMILIES
from hf_mmspec.training.answers.store import AnswerSet
from hf_mmspec.training.features.reading import Reader
from hf_mmspec.training.features.source import NoRecordsError, RecordSource
from hf_mmspec.training.learning.drafter_with_loss import DrafterWithLoss
from hf_mmspec.training.learning.target_parts import TargetParts
from hf_mmspec.training.recipes import Stage
from tests.training.making import answers, collated, conversation, gradients

TAPS = (0, 1)
PICTURES = (1, 0, 2)


def asked():
    return [conversation(seed, pictures, task="ab"[seed % 2]) for seed, pictures in enumerate(PICTURES)]


@pytest.fixture(scope="module")
def stored(pair, tmp_path_factory):
    """Answers with the hidden states that an EAGLE-3 drafter reads, and with those that the others read."""
    folder = tmp_path_factory.mktemp("answers")
    return {layers: answers(folder / str(layers), *pair, asked(), layers=layers, keep=True) for layers in (None, TAPS)}


def open_both(pair, answered, layers, **options):
    reader = Reader(*pair, layers)
    return [RecordSource.open([answered], reader, where, **options) for where in ("stored", "live")]


def close(found, expected):
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("layers", [None, TAPS])
def test_stored_and_live_records_are_the_same(pair, stored, layers):
    from_disk, live = open_both(pair, stored[layers], layers)
    assert (from_disk.is_stored, live.is_stored) == (True, False)
    assert (from_disk.bytes_per_token, live.bytes_per_token) == (32 * 4 * (1 if layers is None else 3), 0)
    for one, other in zip(*(each.records(range(len(PICTURES))) for each in (from_disk, live)), strict=True):
        assert torch.equal(one.ids, other.ids)
        assert (one.prompt_length, one.spans, one.task) == (other.prompt_length, other.spans, other.task)
        close(one.features, other.features)
        close(one.image_embeds, other.image_embeds)
        assert (one.states is None) == (other.states is None) == (layers is None)
        if layers is not None:
            close(one.states, other.states)


@pytest.mark.parametrize("family", ["vispec", "eagle3"])
def test_they_teach_the_same(pair, stored, family):
    layers = TAPS if family == "eagle3" else None
    fields = {} if layers is None else {"feature_layers": list(layers)}
    drafter = FAMILIES[family][1].from_target(pair[0], **fields)
    loss = {"soft_cross_entropy": 1.0, "feature_regression": 1.0}
    learning = DrafterWithLoss(drafter, TargetParts.of(pair[0], drafter), Stage("s", unroll=2, loss=loss)).eval()
    (loss, expected), (other, found) = (
        gradients(learning, collated(learning, *each.records([0, 1])))
        for each in open_both(pair, stored[layers], layers)
    )
    assert other == pytest.approx(loss, rel=1e-4)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-4 * max(gradient.abs().max().item(), 1), rtol=1e-3)


def test_states_are_taken_from_disk_where_they_fit(pair, stored):
    auto = [RecordSource.open([stored[None]], Reader(*pair, layers)).is_stored for layers in (None, TAPS)]
    assert auto == [True, False]
    with pytest.raises(NoRecordsError, match=r"layers \[0, 1\].*--features"):
        RecordSource.open([stored[None]], Reader(*pair, TAPS), "stored")
    assert not RecordSource.open([stored[None], stored[TAPS]], Reader(*pair)).is_stored


def test_a_set_with_further_layers_serves_drafters_that_read_the_last_state(pair, stored):
    one, other = (RecordSource.open([stored[layers]], Reader(*pair), "stored") for layers in (None, TAPS))
    assert one.bytes_per_token == other.bytes_per_token
    assert "features" not in other.rows.column_names  # they are not even read
    for mine, shared in zip(one.records([0, 1]), other.records([0, 1]), strict=True):
        assert mine.features.shape == shared.features.shape
        close(shared.features, mine.features)
        close(shared.image_embeds, mine.image_embeds)
        assert shared.states is None


def test_keys_of_a_target_layer_are_read_on_the_fly(pair, stored):
    reader = Reader(*pair, kv_layer=-1)
    source = RecordSource.open([stored[None]], reader)
    assert not source.is_stored
    assert all(record.keys_values is not None for record in source.records([0, 1]))
    with pytest.raises(NoRecordsError, match=r"kv_loss_target.*not stored: read on the fly"):
        RecordSource.open([stored[None]], reader, "stored")


def test_several_sets_are_numbered_on(pair, stored):
    both = RecordSource.open([stored[None], stored[TAPS]], Reader(*pair))
    assert len(both) == 2 * len(PICTURES)
    assert both.column("key")[: len(PICTURES)] == both.column("key")[len(PICTURES) :]
    (first, again) = both.records([1, 1 + len(PICTURES)])
    assert torch.equal(first.ids, again.ids)
    assert {each.conversation.key for each in both.answered([1, 4])} == {"b/1"}


def test_some_of_the_rows(pair, stored):
    some = open_both(pair, stored[None], None)[0].only([2, 1]).only([1, 0])
    assert some.column("key") == ["b/1", "a/2"]
    assert [record.task for record in some.records([0, 1])] == ["b", "a"]
    records = some.records([0, 1])
    spans = [sum(stop - start for start, stop in record.spans) for record in records]
    assert some.sizes() == [(len(record.ids), visual) for record, visual in zip(records, spans, strict=True)]
    assert [said.tolist() for said in some.said()] == [record.answer for record in records]
    assert spans[0] == 0 < spans[1]


def test_stored_records_stay_on_the_cpu(pair, stored):
    """However many make a batch, that moves as one."""

    class Elsewhere:
        device, config = torch.device("meta"), pair[0].config

    source = RecordSource.open([stored[TAPS]], Reader(Elsewhere, pair[1], TAPS), "stored")
    (record,) = source.records([0])
    tensors = (record.ids, record.features, record.states, record.image_embeds)
    assert {each.device.type for each in tensors} == {"cpu"}


def with_rows(answered: AnswerSet, count: int, *rows):
    """An answer set of `count` tokens for the prompt and answers of these lengths."""
    ids = [[5] * (count + length) for length in rows]
    columns = {"input_ids": ids, "prompt_length": [count] * len(rows), "key": [str(n) for n in rows]}
    return replace(answered, rows=type(answered.rows).from_dict(columns), manifest={})


def test_prompts_have_names_of_their_own_in_several_sets(pair, stored):
    """Rows of tables are numbered in each table anew; embedded prompts are the same in every set."""

    def named(data, *keys):
        made = with_rows(stored[None], 10, *[5] * len(keys))
        rows = made.rows.remove_columns("key").add_column("key", list(keys))
        return replace(made, rows=rows, manifest={"data": data})

    sets = [named("cats", "0", "1/x"), named("dogs", "0"), named("cats", "0"), named("embedded:chat", "chat/train/0")]
    source = RecordSource.open(sets, Reader(*pair))
    assert source.prompts() == ["0", "1/x", "1/0", "0", "chat/train/0"]
    assert source.only([2, 4]).prompts() == ["1/0", "chat/train/0"]


def test_answers_that_teach_nothing_are_left_out(pair, stored):
    source = RecordSource.open([with_rows(stored[None], 10, 1, 2, 8)], Reader(*pair))
    assert list(source.numbers) == [1, 2]
    assert source.dropped == {"no answer token to learn": 1}
    cut = RecordSource.open([with_rows(stored[None], 10, 2, 8)], Reader(*pair), max_length=12)
    assert (len(cut), cut.max_length) == (2, 12)
    with pytest.raises(NoRecordsError, match=r"2 x the answer is cut by the length limit.*--max-length"):
        RecordSource.open([with_rows(stored[None], 10, 2, 8)], Reader(*pair), max_length=11)


def test_records_are_cut_at_the_limit(pair, stored):
    whole = open_both(pair, stored[None], None)[0].records([1])[0]
    limit = whole.prompt_length + 3
    for source in open_both(pair, stored[None], None, max_length=limit):
        keys = source.column("key")
        (record,) = source.records([keys.index("b/1")])
        assert torch.equal(record.ids, whole.ids[:limit])
        assert len(record.features) == limit - 1
