"""Records survive a round trip, crashes leave no halves, batches train on answers only."""

import random

import pytest
import torch

from hf_mmspec.training.batches import collate, shuffled
from hf_mmspec.training.records import Record, load_folder, load_records, read_answers, save_records, write_answers
from hf_mmspec.training.vocabulary import coverage, draft_vocabulary

WIDTH = 8


def record(length=20, prompt=12, spans=((2, 6),), seed=0):
    generator = torch.Generator().manual_seed(seed)
    visual = sum(stop - start for start, stop in spans)
    return Record(
        ids=torch.randint(0, 50, (length,), generator=generator),
        features=torch.randn(length - 1, WIDTH, generator=generator).bfloat16(),
        prompt_length=prompt,
        spans=list(spans),
        image_embeds=torch.randn(visual, WIDTH, generator=generator).bfloat16(),
        source={"task": "scene", "seed": seed},
    )


def embed(ids):
    return ids[:, None].expand(-1, WIDTH).float()


def same(a, b):
    assert torch.equal(a.ids, b.ids)
    assert torch.equal(a.features, b.features)
    assert torch.equal(a.image_embeds, b.image_embeds)
    assert (a.prompt_length, a.spans, a.source) == (b.prompt_length, b.spans, b.source)


def test_round_trip(tmp_path):
    records = [record(20), record(15, spans=(), seed=1), record(30, 20, ((0, 3), (3, 9)), seed=2)]
    save_records(tmp_path / "a" / "00000.safetensors", records[:2])
    save_records(tmp_path / "a" / "00001.safetensors", records[2:])
    for before, after in zip(records, load_folder(tmp_path / "a"), strict=True):
        same(before, after)
    assert not list(tmp_path.rglob("*.partial"))
    with pytest.raises(FileNotFoundError, match="distillation"):
        load_folder(tmp_path / "nowhere")


def test_answers_alone(tmp_path):
    records = [record(20), record(15, spans=(), seed=1)]
    write_answers(tmp_path / "answers.jsonl", records)
    back = read_answers(tmp_path / "answers.jsonl")
    assert [row["ids"] for row in back] == [r.answer for r in records]
    assert back[1]["seed"] == 1


def test_without_images():
    cut = record().without_images()
    assert (len(cut.ids), len(cut.features), cut.prompt_length, cut.spans) == (16, 15, 8, [])
    assert torch.equal(cut.ids[2:], record().ids[6:])
    assert torch.equal(cut.features[2:], record().features[6:])


def test_loss_is_on_answer_tokens_only():
    batch = collate([record(20), record(15, 10, ())], embed)
    assert batch.inputs_embeds.shape == (2, 19, WIDTH)
    for row, source in enumerate((record(20), record(15, 10, ()))):
        for slot in batch.loss_mask[row].nonzero()[:, 0].tolist():
            assert batch.next_tokens[row, slot] == source.ids[slot + 2]
            assert source.prompt_length <= slot + 1 <= len(source.ids) - 2
    # the first draft follows the token that the prefill gave, the last one is the answer's end
    assert batch.loss_mask[0].nonzero()[:, 0].tolist() == list(range(11, 18))
    assert batch.loss_mask_at(2)[0].nonzero()[:, 0].tolist() == list(range(13, 18))
    assert torch.equal(batch.inputs_embeds[0, 2:6], record().image_embeds.float())


def test_an_all_zero_mask_is_refused():
    with pytest.raises(ValueError, match="all zero"):
        collate([record(13, 12)], embed)


def test_an_epoch_has_every_record_once():
    records = [record(random.Random(i).randint(15, 60), seed=i) for i in range(23)]
    batches = list(shuffled(records, 5, seed=1))
    assert sorted(r.source["seed"] for batch in batches for r in batch) == list(range(23))
    again = list(shuffled(records, 5, seed=1))
    assert [[id(r) for r in batch] for batch in batches] == [[id(r) for r in batch] for batch in again]


def test_vocabulary_has_every_answer_token_and_the_lowest_others():
    records = [record(40, seed=i) for i in range(3)]
    used = {token for r in records for token in r.answer}
    ids = draft_vocabulary(records, at_least=45, at_most=100, vocab_size=60)
    assert used <= set(ids.tolist())
    assert len(ids) == 45
    assert ids.tolist() == sorted(set(ids.tolist()))
    assert coverage(records, ids) == 1.0
    few = draft_vocabulary(records, at_least=0, at_most=3, vocab_size=60)
    assert len(few) == 3
    assert 0 < coverage(records, few) < 1


def test_a_shard_is_whole_or_not_there(tmp_path, monkeypatch):
    from hf_mmspec.training import records as module

    def broken(tensors, file, **_):
        file.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(module, "save_file", broken)
    with pytest.raises(OSError, match="disk full"):
        save_records(tmp_path / "00000.safetensors", [record()])
    assert not (tmp_path / "00000.safetensors").exists()
    monkeypatch.undo()
    save_records(tmp_path / "00000.safetensors", [record()])
    same(next(load_records(tmp_path / "00000.safetensors")), record())
