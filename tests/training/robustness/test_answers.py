"""Answers on disk survive full disks and damage: only what is broken is made again, and nothing twice."""

import errno
import json
from collections import Counter
from types import SimpleNamespace

import datasets
import pytest
from datasets.arrow_writer import ArrowWriter

from hf_mmspec.training.answers import distil as distil_module
from hf_mmspec.training.answers import store as store_module
from hf_mmspec.training.answers.store import AnswerSet, AnswerStore, AnswerStoreError
from tests.training.robustness import world


class Killed(BaseException):
    """Stands for the end of the process: no `except Exception` stops it."""


def rows_of(folder):
    return datasets.load_from_disk(str(folder)).to_list()


def dying(real, at, error):
    """`real`, which raises at its call number `at`."""
    calls = []

    def call(*args, **options):
        calls.append(1)
        if len(calls) == at:
            raise error
        return real(*args, **options)

    return call


@pytest.fixture
def made(monkeypatch):
    """Numbers of the shards that are made."""
    numbers, make = [], distil_module.Distillation.make_shard

    def noted(self, number):
        numbers.append(number)
        return make(self, number)

    monkeypatch.setattr(distil_module.Distillation, "make_shard", noted)
    return numbers


@pytest.mark.parametrize("keep_states", [False, True])
def test_every_prompt_is_answered_once(table, tmp_path, target, processor, keep_states):
    keep = world.recipe("vispec") if keep_states else None
    world.answered(table, tmp_path / "a", target, processor, keep=keep)
    rows = rows_of(tmp_path / "a")
    assert [row["key"] for row in rows] == [f"{number}/p{number}" for number in range(world.PROMPTS)]
    assert {"features" in row for row in rows} == {keep_states}


def test_a_picture_in_a_file_is_not_kept_twice(finished, table):
    images = [image for row in rows_of(finished) for image in row["images"]]
    assert len(images) == 16
    assert all(image == {"bytes": None, "path": str(table.parent / image["path"])} for image in images)


@pytest.mark.parametrize(
    ("where", "name", "at", "again"),
    [
        (ArrowWriter, "write_table", 2, [1, 2]),
        (store_module, "write_json", 3, [1, 2]),
        (distil_module, "Progress", 2, [2]),
    ],
)
def test_a_stop_anywhere_loses_nothing(
    table, tmp_path, target, processor, finished, monkeypatch, made, where, name, at, again
):
    """In the middle of the second shard's data, before its mark, and behind it."""
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(where, name, dying(getattr(where, name), at, Killed()))
        world.answered(table, tmp_path / "a", target, processor)
    assert made == [0, 1]
    assert len(AnswerSet.load(tmp_path / "a").rows) == 24 - 8 * len(again)  # what is there can be read already
    world.answered(table, tmp_path / "a", target, processor)
    assert made[2:] == again
    assert rows_of(tmp_path / "a") == rows_of(finished)


def test_what_a_killed_process_was_writing_is_cleared(answers, table, target, processor, made):
    (answers / ".partial-x").mkdir()
    (answers / ".partial-x" / "data.arrow").write_bytes(b"half")
    (answers / ".state.json.77.partial").write_text("{")
    world.answered(table, answers, target, processor)
    assert made == [] and not list(answers.glob(".*"))


def test_a_folder_with_nothing_but_leftovers_is_new(tmp_path, table, target, processor):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / ".distil.json.77.partial").write_text("{")
    world.answered(table, tmp_path / "a", target, processor)
    assert len(rows_of(tmp_path / "a")) == world.PROMPTS


def test_a_distillation_that_failed_in_its_first_shard_may_be_tried_with_other_options(
    table, tmp_path, target, processor, monkeypatch
):
    """Out of memory, and so in smaller shards."""
    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr(distil_module, "answer_batch", dying(None, 1, MemoryError()))
        world.answered(table, tmp_path / "a", target, processor)
    world.answered(table, tmp_path / "a", target, processor, shard_size=4)
    assert len(rows_of(tmp_path / "a")) == world.PROMPTS
    with pytest.raises(AnswerStoreError, match=r"made otherwise \(shard_size differ\)"):
        world.answered(table, tmp_path / "a", target, processor)


def test_processes_look_before_anyone_writes(answers, table, target, processor, monkeypatch, made):
    """Were each to look when it is ready, a faster one would change what a slower one takes for its share."""
    for number in (0, 1):
        (answers / f"data-{number:05d}.json").unlink()
    other, shards = AnswerStore.open(answers, json.loads((answers / "distil.json").read_text())), {}

    class Second:
        process_index, num_processes, is_main_process = 1, 2, False

        def wait_for_everyone(self):
            if not shards:  # the other process goes first behind the barrier
                shards[0] = True
                (answers / "data-00000.json").write_text(json.dumps({"rows": 8, "skipped": {}}))

    monkeypatch.setattr(distil_module, "processes", Second)
    run = world.distil_run(table, answers)
    distil_module.Distillation.run(world.prepared(run, target, processor))
    assert made == [1] and other.answered() == 24


@pytest.mark.parametrize(
    "damage", ["cut", "empty", "garbage", "zeros", "gone", "mark empty", "mark a number", "mark gone"]
)
def test_only_a_damaged_shard_is_made_again(answers, finished, table, target, processor, made, damage):
    data, mark = answers / "data-00001.arrow", answers / "data-00001.json"
    whole = data.read_bytes()
    if damage == "gone":
        data.unlink()
    elif damage == "mark gone":
        mark.unlink()
    elif damage.startswith("mark"):
        mark.write_text("" if damage == "mark empty" else "7")
    else:
        half = len(whole) // 2
        data.write_bytes({"cut": whole[:half], "empty": b"", "garbage": b"\x07" * 99, "zeros": bytes(half)}[damage])
    if damage != "mark gone":
        with pytest.raises(AnswerStoreError, match=r"data-00001.arrow: damaged.*mmspec distil.* again: only what"):
            AnswerSet.load(answers)
    (answers / "data-00002.json").unlink()  # a later one is missing too
    world.answered(table, answers, target, processor)
    assert made == [1, 2]
    assert rows_of(answers) == rows_of(finished)


def test_a_shard_with_fewer_rows_than_it_had_is_damaged(answers):
    (answers / "data-00001.json").write_text('{"rows": 9, "skipped": {}}')
    with pytest.raises(AnswerStoreError, match="holds 8 rows instead of 9"):
        AnswerSet.load(answers)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 99}', '{"format": 1}'])
def test_a_damaged_manifest_is_named(answers, table, target, processor, text):
    (answers / "distil.json").write_text(text)
    for use in (lambda: AnswerSet.load(answers), lambda: world.answered(table, answers, target, processor)):
        with pytest.raises(AnswerStoreError, match=r"distil.json: (damaged|written by another)|made otherwise \(data"):
            use()


def test_no_answers_are_said_to_be_none(tmp_path):
    with pytest.raises(AnswerStoreError, match="make them by `mmspec distil`"):
        AnswerSet.load(tmp_path)


def test_a_disk_that_will_be_full_stops_before_it_is(table, tmp_path, target, processor, monkeypatch, finished):
    free = iter([10**12, 100])
    with monkeypatch.context() as patch, pytest.raises(OSError, match=r"/a: 0.00 GB free.*Make room and run the same"):
        patch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=next(free)))
        world.answered(table, tmp_path / "a", target, processor)
    assert len(AnswerSet.load(tmp_path / "a").rows) == 8
    world.answered(table, tmp_path / "a", target, processor)
    assert rows_of(tmp_path / "a") == rows_of(finished)


@pytest.mark.parametrize(
    ("where", "name", "at", "left"),
    [(ArrowWriter, "write_table", 3, 16), (store_module, "write_json", 4, 16), (store_module, "write_json", 5, 24)],
)
def test_a_full_disk_names_the_folder(
    table, tmp_path, target, processor, monkeypatch, finished, where, name, at, left
):
    """In a shard's data, in its mark, and at the very end."""
    full = OSError(errno.ENOSPC, "No space left on device")
    with monkeypatch.context() as patch, pytest.raises(OSError, match=r"/a: the disk is full.*run the same command"):
        patch.setattr(where, name, dying(getattr(where, name), at, full))
        world.answered(table, tmp_path / "a", target, processor)
    assert len(AnswerSet.load(tmp_path / "a").rows) == left
    world.answered(table, tmp_path / "a", target, processor)
    assert rows_of(tmp_path / "a") == rows_of(finished)


def test_other_errors_of_a_disk_are_left_as_they_are(table, tmp_path, target, processor, monkeypatch):
    monkeypatch.setattr(ArrowWriter, "write_table", dying(None, 1, OSError(errno.EROFS, "read-only")))
    with pytest.raises(OSError, match=r"^\[Errno 30\] read-only"):
        world.answered(table, tmp_path / "a", target, processor)


def test_shards_without_a_usable_row_are_finished_too(tmp_path, target, processor):
    """Eight prompts that cannot be asked make a shard of their own."""
    rows = [{"prompt": "<image>" if number < 8 else f"What is {number}?"} for number in range(24)]
    file = world.write_rows(tmp_path, rows)
    said = world.answered(file, tmp_path / "a", target, processor, max_skipped=0.4)
    assert "8 samples were left out: a placeholder's own text in the prompt" in said
    assert len(rows_of(tmp_path / "a")) == len(AnswerSet.load(tmp_path / "a").rows) == 16


def test_marks_add_up(tmp_path):
    store = AnswerStore.open(tmp_path / "a", {"features": None})
    store.write(0, [], Counter({"odd": 2}))
    store.write(1, [], Counter({"odd": 1, "even": 1}))
    assert store.skipped() == {"odd": 3, "even": 1} and store.answered() == 0
