"""Distillation shard by shard: what is there is not made again, what cannot be used is counted, processes share."""

from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from hf_mmspec.data import UnusableSample, user_message
from hf_mmspec.data.conversation import Conversation
from hf_mmspec.training.answers import distil as distil_module
from hf_mmspec.training.answers.answering import Answering
from hf_mmspec.training.answers.estimate import duration, estimate
from hf_mmspec.training.answers.screening import Screening, TooManySkippedError, insist_on_few
from hf_mmspec.training.answers.store import AnswerSet
from hf_mmspec.training.features.reading import Reader
from tests.training.making import conversation, distillation

ASKED = [conversation(seed, seed % 3) for seed in range(6)]


@pytest.fixture
def calls(monkeypatch):
    made, original = [], distil_module.answer_batch
    monkeypatch.setattr(
        distil_module,
        "answer_batch",
        lambda m, p, asked, *rest: made.append(len(asked)) or original(m, p, asked, *rest),
    )
    return made


def ids(folder):
    return AnswerSet.load(folder).rows["input_ids"][:]


def test_what_is_there_is_not_made_again(qwen, tmp_path, calls):
    work = distillation(tmp_path / "a", *qwen, ASKED, max_new_tokens=4)
    seen = []
    work.run(seen.append)
    whole = ids(tmp_path / "a")
    assert calls == [4, 2]
    assert [(p.answers, p.skipped, p.shards) for p in seen] == [(4, 0, 2), (2, 0, 2)]
    assert sum(p.tokens for p in seen) == sum(r["input_ids"].__len__() - r["prompt_length"] for r in rows(tmp_path))
    work.run()
    assert calls == [4, 2]
    (tmp_path / "a" / "data-00001.json").unlink()
    work.run()
    assert calls == [4, 2, 2]
    assert ids(tmp_path / "a") == whole


def rows(tmp_path):
    return AnswerSet.load(tmp_path / "a").rows


def test_hidden_states_are_kept_where_they_are_wanted(qwen, tmp_path):
    distillation(tmp_path / "a", *qwen, ASKED[:2], keep=True, layers=(0, 1), max_new_tokens=4).run()
    row = rows(tmp_path)[1]
    assert len(row["features"]) == (len(row["input_ids"]) - 1) * 2 * 32 * 4
    assert len(row["spans"]) == 1


def test_samples_that_cannot_be_used_are_counted_and_never_fatal(qwen, tmp_path):
    class Broken(list):
        def __getitem__(self, index):
            if index == 0:
                raise UnusableSample("no prompt", "row 0")
            return super().__getitem__(index)

    asked = Broken(ASKED)
    asked[2] = replace(ASKED[2], pictures=[b"no picture", ASKED[2].pictures[1]])
    asked[3] = Conversation([user_message("What is <|image_pad|>?")])
    asked[4] = Conversation([user_message("  ")])
    work = distillation(tmp_path / "a", *qwen, asked, max_new_tokens=4, max_skipped=0.9)
    work.run()
    assert work.store.skipped() == {
        "no prompt": 1,
        "broken picture": 1,
        "a placeholder's own text in the prompt": 1,
        "empty prompt": 1,
    }
    assert rows(tmp_path)["key"][:] == ["t/1", "t/5"]


def test_a_shard_may_be_empty_or_large(qwen, tmp_path, monkeypatch):
    """`datasets` writes no file for no row, and several for many bytes."""
    asked = [Conversation([user_message(" ")]), *ASKED[:3]]
    monkeypatch.setattr("datasets.config.MAX_SHARD_SIZE", 100)
    distillation(tmp_path / "a", *qwen, asked, shard_size=1, max_new_tokens=4, max_skipped=1.0).run()
    assert rows(tmp_path)["key"][:] == ["t/0", "t/1", "t/2"]
    distillation(tmp_path / "b", *qwen, asked[1:], max_new_tokens=4).run()
    assert ids(tmp_path / "b") == ids(tmp_path / "a")


def test_too_many_are_an_error_with_counts(qwen, tmp_path):
    asked = [Conversation([user_message(" ")])] * 4
    with pytest.raises(TooManySkippedError, match=r"4 of 4 samples .*4 x empty prompt.*--max-skipped"):
        distillation(tmp_path / "a", *qwen, asked).run()
    insist_on_few(3, 15, 0.1, "")  # too few to judge by
    insist_on_few(2, 20, 0.1, "")
    with pytest.raises(TooManySkippedError):
        insist_on_few(3, 20, 0.1, "")


@pytest.mark.parametrize(
    "answer, reason",
    [
        ([5, 6, 1], None),
        ([1, 1], "empty answer"),
        ([5], "empty answer"),
        ([], "empty answer"),
        ([5] * 11, "answer too long"),
        ([5, "image", 6], "an image token in the answer"),
    ],
)
def test_answers_that_teach_nothing(qwen, answer, reason):
    image = qwen[0].config.image_token_id
    screening = Screening(qwen[1], qwen[0], max_length=20)
    answer = [image if token == "image" else token for token in answer]
    assert screening.of_answer(10, answer, {1}) == reason


def test_prompts_that_leave_no_room(qwen):
    screening = Screening(qwen[1], qwen[0], max_length=20)
    assert [screening.of_length(length) for length in (18, 19)] == [None, "prompt too long"]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_shard_that_is_too_large_for_memory_is_answered_in_halves(qwen, tmp_path, monkeypatch, temperature):
    """Greedy answers are the same, drawn ones others, but those of the same halves; states are read so too."""
    how = Answering(temperature, 6)

    def distilled(name, most):
        def limited(real, items):
            def work(*args):
                if len(args[items]) > most:
                    raise torch.OutOfMemoryError("CUDA out of memory")
                return real(*args)

            return work

        work = distillation(tmp_path / name, *qwen, ASKED, keep=True, how=how)
        with monkeypatch.context() as patch:
            patch.setattr(distil_module, "answer_batch", limited(distil_module.answer_batch, 2))
            patch.setattr(Reader, "read", limited(Reader.read, 1))
            work.run()
        return AnswerSet.load(tmp_path / name).rows.to_list()

    whole, once, again = distilled("whole", 4), distilled("once", 1), distilled("again", 1)
    assert once == again and len(once) == len(ASKED)
    assert ([row["input_ids"] for row in once] == [row["input_ids"] for row in whole]) == (temperature == 0)


def test_memory_that_is_not_enough_for_one_prompt_is_an_error(qwen, tmp_path, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(distil_module, "answer_batch", full)
    with pytest.raises(torch.OutOfMemoryError):
        distillation(tmp_path / "a", *qwen, ASKED).run()


def test_parts_of_a_shard_draw_their_own_tokens(qwen, tmp_path, monkeypatch):
    """The same prompt four times: in halves too, no two answers are alike."""
    real = distil_module.answer_batch

    def limited(model, processor, asked, *rest):
        if len(asked) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(model, processor, asked, *rest)

    monkeypatch.setattr(distil_module, "answer_batch", limited)
    distillation(tmp_path / "a", *qwen, [ASKED[1]] * 4, how=Answering(1.0, 12)).run()
    assert len({tuple(each) for each in ids(tmp_path / "a")}) == 4


def test_the_estimate_needs_no_more_memory_than_there_is(qwen, tmp_path, monkeypatch):
    work, real = distillation(tmp_path / "a", *qwen, ASKED), type(qwen[0]).generate

    def limited(self, input_ids, **options):
        if len(input_ids) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, input_ids, **options)

    monkeypatch.setattr(type(qwen[0]), "generate", limited)
    assert estimate(work).seconds > 0


def test_a_processor_that_refuses_a_prompt(qwen, tmp_path, monkeypatch):
    def refuse(*_):
        raise ValueError("absolute aspect ratio must be smaller than 200")

    work = distillation(tmp_path / "a", *qwen, ASKED[:2])
    monkeypatch.setattr(distil_module, "model_inputs", refuse)
    skipped = Counter()
    assert list(work.askable(0, skipped)) == []
    assert skipped == {"the processor refuses it": 2}


def test_processes_share_the_shards_before_anybody_writes(qwen, tmp_path, monkeypatch):
    """Each looks at what is missing; were one to write before all have looked, they would not share the same list."""
    work = distillation(tmp_path / "a", *qwen, ASKED, shard_size=1)
    events, made = [], {}

    def state(rank):
        return SimpleNamespace(
            process_index=rank,
            num_processes=2,
            is_main_process=rank == 0,
            wait_for_everyone=lambda: events.append("all"),
        )

    monkeypatch.setattr(type(work), "make_shard", lambda self, n: events.append(n) or ([], Counter()))
    monkeypatch.setattr(type(work.store), "write", lambda *_: None)
    for rank in (0, 1):
        events.clear()
        monkeypatch.setattr(distil_module, "processes", lambda rank=rank: state(rank))
        work.run()
        made[rank] = [event for event in events if event != "all"]
        assert events[0] == "all"
    assert made == {0: [0, 2, 4], 1: [1, 3, 5]}


def test_estimates_bound_what_is_to_come(qwen, tmp_path):
    work = distillation(tmp_path / "a", *qwen, ASKED, keep=True, max_new_tokens=4)
    found = estimate(work)
    assert (found.shards, found.bytes_per_token) == (2, 128)
    assert found.seconds > 0
    assert found.size > found.tokens * 132
    assert "128 bytes a token for hidden states" in str(found)
    work.run()
    assert estimate(work).shards == 0
    assert "nothing to decode" in str(estimate(work))
    assert found.tokens >= sum(map(len, ids(tmp_path / "a")))


def test_the_room_for_states_counts_visual_tokens_twice(llava, tmp_path):
    """Their merged embeddings are kept too."""
    work = distillation(tmp_path / "a", *llava, [conversation(seed) for seed in range(4)], keep=True, max_new_tokens=4)
    found = estimate(work)
    work.run()
    kept = sum(len(row[name]) for row in rows(tmp_path) for name in ("features", "image_embeds"))
    assert kept < found.size < 2 * kept


def test_durations():
    assert [duration(seconds) for seconds in (5, 300, 9000)] == ["5 s", "5 min", "2.5 h"]
