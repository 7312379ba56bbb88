"""Prompts of any data: by task, as many as wanted, unusable ones counted, and clear words where none is left."""

import json

import pytest
from PIL import Image

from hf_mmspec.data import Columns, DataError, Source
from hf_mmspec.data.embedded import TASKS
from hf_mmspec.evaluation import prompts
from hf_mmspec.evaluation.prompts import collect_prompts, first_prompts, open_data, unique_names


def write(folder, rows, picture="a.png"):
    folder.mkdir(exist_ok=True)
    Image.new("RGB", (60, 40), "blue").save(folder / "a.png")
    (folder / "broken.png").write_bytes(b"no picture")
    (folder / "prompts.jsonl").write_text("".join(json.dumps({"image": picture, **row}) + "\n" for row in rows))
    return str(folder)


@pytest.fixture
def folder(tmp_path):
    rows = [{"prompt": f"Question {i}?", "task": ("count", "read")[i % 2]} for i in range(6)]
    bad = [
        {"prompt": "", "task": "read"},
        {"prompt": "What?", "task": "read", "image": "nowhere.png"},
        {"prompt": "What?", "task": "read", "image": "broken.png"},
        {"prompt": "Two <image> here?", "task": "read"},
    ]
    return write(tmp_path / "mine", bad + rows)


def collect(target, processor, data, samples, tasks=None, **options):
    return collect_prompts(target, processor, open_data(data, samples, Source("", **options)), samples, tasks)


def test_the_embedded_tasks_are_those_of_the_test_split(target, processor):
    found = collect(target, processor, ["embedded"], 2)
    assert {task: [prompt.conversation.key for prompt in members] for task, members in found.by_task.items()} == {
        task: [f"{task}/test/0", f"{task}/test/1"] for task in TASKS
    }
    for members in found.by_task.values():
        assert all(prompt.image_tokens == 144 * len(prompt.conversation.pictures) for prompt in members)
    assert (
        collect(target, processor, ["embedded"], 1, split="val").by_task["scene"][0].conversation.key == "scene/val/0"
    )


def test_a_folder_is_parted_into_its_tasks_and_what_cannot_be_used_is_counted(target, processor, folder):
    found = collect(target, processor, [folder], 2)
    texts = {task: [prompt.conversation.text for prompt in members] for task, members in found.by_task.items()}
    assert {task: [text for text in each if text[0] == "Q"] for task, each in texts.items()} == texts
    assert texts["count"] == ["Question 0?", "Question 2?"] and texts["read"] == ["Question 1?", "Question 3?"]
    assert found.skipped["no prompt"] == found.skipped["picture missing"] == 1
    assert found.skipped["broken picture"] == found.skipped["a placeholder's own text in the prompt"] == 1
    assert sum(found.skipped.values()) == 4


def test_what_the_template_refuses_is_skipped_too(target, processor, folder, monkeypatch):
    monkeypatch.setattr(processor, "chat_template", "{{ raise_exception('no place\nfor that') }}")
    with pytest.raises(ValueError, match=r"skipped were .*x the processor refuses it: .*no place for that"):
        collect(target, processor, [folder], 2)


def test_a_public_set_goes_by_its_name(tmp_path):
    assert prompts._short_name(f"textvqa={tmp_path}") == "textvqa" and prompts._short_name("org/set") == "set"


def test_wanted_tasks_only_and_text_without_a_picture(target, processor, folder):
    found = collect(target, processor, [folder, "embedded:text"], 1, ["embedded:text/text", "mine/count"])
    assert list(found.by_task) == ["embedded:text/text", "mine/count"]
    assert [members[0].image_tokens for members in found.by_task.values()] == [0, 144]


def test_sources_without_tasks_are_counted_under_their_own_names(target, processor, tmp_path):
    one, two = (write(tmp_path / name, [{"prompt": "What?"}]) for name in ("one", "two"))
    assert list(collect(target, processor, [one], 1).by_task) == ["all"]
    assert list(collect(target, processor, [one, two], 1).by_task) == ["one", "two"]


def test_columns_are_named(target, processor, tmp_path):
    data = write(tmp_path / "d", [{"ask": "What?", "kind": "x"}])
    with pytest.raises(DataError, match="prompt-column"):
        open_data([data], 1)
    found = collect(target, processor, [data], 1, columns=Columns(prompt="ask", task="kind"))
    assert found.by_task["x"][0].conversation.text == "What?"


def test_pictures_may_lie_elsewhere(target, processor, tmp_path):
    data = write(tmp_path / "d", [{"prompt": "What?"}], picture="b.png")
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (60, 40)).save(tmp_path / "pictures" / "b.png")
    assert collect(target, processor, [data], 1, pictures=str(tmp_path / "pictures")).skipped == {}


def test_nothing_usable_is_an_error_that_says_why(target, processor, tmp_path, folder):
    bad = write(tmp_path / "bad", [{"prompt": "What?"}] * 3, picture="broken.png")
    with pytest.raises(ValueError, match=r"no usable prompt in the data.*skipped were 3 x broken picture"):
        collect(target, processor, [bad], 2)
    with pytest.raises(ValueError, match="no usable prompt of the task poetry: its tasks are read, count"):
        collect(target, processor, [folder], 1, ["poetry"])
    with pytest.raises(ValueError, match="no usable prompt"):
        first_prompts(target, processor, open_data([bad], 1))


def test_names_are_made_unique():
    assert unique_names(["a", "b", "a", "a-2"], taken=["b"]) == ["a", "b-2", "a-2", "a-2-2"]
