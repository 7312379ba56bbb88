"""Answers as rows and back; known answers of the embedded default, whose prompts come back from their seeds."""

import io
import json

import pytest
from PIL import Image

from hf_mmspec.data import DataError, Source, model_inputs, open_picture, open_source
from hf_mmspec.training import distil as training_distil
from hf_mmspec.training.answers.answering import Answering
from hf_mmspec.training.answers.known import KnownAnswers, write_known
from hf_mmspec.training.answers.rows import from_row, picture_column, to_row
from hf_mmspec.training.answers.store import FEATURES
from hf_mmspec.training.features.reading import Answered
from hf_mmspec.training.recipes import family_recipe, read_recipe
from tests.training.making import answers, conversation, picture


def test_round_trip_through_the_data_set(qwen, tmp_path):
    asked = [conversation(seed, pictures, "ab"[seed % 2]) for seed, pictures in enumerate((2, 0, 1))]
    kept = answers(tmp_path / "a", *qwen, asked, max_new_tokens=4)
    assert set(kept.rows.column_names) == set(FEATURES)
    for row, before in zip(kept.rows, asked, strict=True):
        answered = from_row(row)
        after = answered.conversation
        assert (after.task, after.key, after.text) == (before.task, before.key, before.text)
        assert [m["content"] for m in after.messages] == [list(m["content"]) for m in before.messages]
        inputs = model_inputs(qwen[1], [after])
        assert list(answered.ids[: answered.prompt_length]) == inputs["input_ids"][0].tolist()
        for one, other in zip(after.pictures, before.pictures, strict=True):
            assert open_picture(one).tobytes() == other.tobytes()
        assert row["temperature"] == 0.0


def test_pictures_in_files_are_kept_as_paths(tmp_path):
    file = tmp_path / "p.png"
    picture(1).save(file)
    assert picture_column(file) == picture_column(str(file)) == {"bytes": None, "path": str(file.resolve())}
    assert picture_column(file.read_bytes()) == {"bytes": file.read_bytes(), "path": None}
    assert picture_column({"bytes": b"x", "path": "p", "more": 1}) == {"bytes": b"x", "path": "p"}
    kept = picture_column(picture(1))
    assert Image.open(io.BytesIO(kept["bytes"])).tobytes() == picture(1).tobytes()


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    """A file of answers, and the conversations that were answered."""
    file = tmp_path_factory.mktemp("known") / "answers.jsonl"
    asked = [*open_source(Source("embedded", limit=3)), open_source(Source("embedded:text", limit=2))[1]]
    rows = [to_row(Answered(each, [1, 2, 10 + i, 20 + i], 2), 0.5) for i, each in enumerate(asked)]
    write_known(file, rows)
    return file, asked


def test_prompts_come_back_from_their_seeds(known):
    file, asked = known
    found = KnownAnswers(file)
    assert len(found) == 4
    assert [list(each.answer_ids) for each in found] == [[10 + i, 20 + i] for i in range(4)]
    for before, after in zip(asked, found, strict=True):
        assert (after.key, after.task, after.text) == (before.key, before.task, before.text)
        assert [p.tobytes() for p in after.pictures] == [p.tobytes() for p in before.pictures]
    assert [each.key for each in found[1:3]] == [each.key for each in asked[1:3]]
    assert json.loads(file.read_text().splitlines()[0])["temperature"] == 0.5


def test_their_fingerprint_is_of_the_answers(known, tmp_path):
    other = tmp_path / "other.jsonl"
    other.write_text(known[0].read_text())
    assert KnownAnswers(other).fingerprint() == KnownAnswers(known[0]).fingerprint()
    other.write_text(known[0].read_text().replace("10", "11", 1))
    assert KnownAnswers(other).fingerprint() != KnownAnswers(known[0]).fingerprint()


@pytest.mark.parametrize("text", ["", "{", '{"ids": 3, "seed": 1}', '{"seed": 1}', '{"ids": [3], "seed": 1}'])
def test_other_files_are_refused(tmp_path, text):
    file = tmp_path / "a.jsonl"
    file.write_text(text)
    with pytest.raises(DataError, match=r"a\.jsonl: no"):
        KnownAnswers(file)


def test_known_answers_are_written_without_reading_states(llava, tmp_path, monkeypatch):
    """Hidden states are thousands of times larger than token ids."""
    columns = []
    monkeypatch.setattr(training_distil, "write_known", lambda _, rows: columns.extend(rows.column_names))
    source, how = Source("embedded:text", limit=2), Answering(max_new_tokens=4)
    run = training_distil.DistilRun(source, tmp_path / "a", "tiny", how, keep=read_recipe(family_recipe("vispec")))
    training_distil.distil(run, *llava, lambda _: None)
    assert set(columns) == {"key", "input_ids", "prompt_length", "temperature"}
