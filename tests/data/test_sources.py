"""Every source that a user may name is a sequence of conversations, or one clear error."""

import json
import pickle
import subprocess
import sys
from collections import Counter

import datasets
import pytest
from datasets import Dataset, DatasetDict, Features, Image, List, Value
from PIL import Image as PILImage

from hf_mmspec.data import Columns, DataError, Source, UnusableSample, open_picture, open_source

from .conftest import Folder


def texts(conversations):
    return [conversation.text for conversation in conversations]


def fails(words, data, **options):
    with pytest.raises(DataError, match=words) as caught:
        open_source(Source(str(data), **options))
    assert "\n" not in str(caught.value)


# Tables in a folder


def test_rows_with_one_picture_several_and_none(folder):
    folder.lines(
        {"image": "0.png", "prompt": "a"},
        {"image": "0.png", "prompt": "b"},
        {"image": ["0.png", "1.png"], "prompt": "c"},
        {"image": None, "prompt": "d"},
        {"prompt": "e"},
        {"image": "", "prompt": "f"},
    )
    conversations = folder.open()
    assert texts(conversations) == list("abcdef") and len(conversations) == 6
    zero, one = folder.picture(0), folder.picture(1)
    assert [list(each.pictures) for each in conversations] == [[zero], [zero], [zero, one], [], [], []]
    assert conversations[2].messages[0]["content"] == [*[{"type": "image"}] * 2, {"type": "text", "text": "c"}]
    assert len({each.key for each in conversations}) == 6


@pytest.mark.parametrize("name", ["prompts.csv", "metadata.csv", "x.tsv"])
def test_delimited_text(folder, name):
    tab = "\t" if name.endswith("tsv") else ","
    rows = [["file_name", "prompt"], ["0.png", '"two\nlines, ""quoted"""'], ["", "NA"], ["1.png", "None"]]
    (folder.path / name).write_text("\n".join(tab.join(row) for row in rows))
    conversations = folder.open()
    assert texts(conversations) == ['two\nlines, "quoted"', "NA", "None"]
    assert [list(each.pictures) for each in conversations] == [[folder.picture(0)], [], [folder.picture(1)]]


@pytest.mark.parametrize("name", ["prompts.json", "x.JSON"])
def test_json(folder, name):
    (folder.path / name).write_text(json.dumps([{"image": "1.png", "prompt": "a"}], indent=1))
    assert folder.open()[0].pictures == [folder.picture(1)]
    assert folder.open(name)[0].pictures == [folder.picture(1)], "a table alone: paths are relative to it"


def test_parquet_with_pictures_in_it(folder):
    features = Features({"images": List(Image()), "question": Value("string")})
    rows = {"images": [[{"bytes": folder.data(0)}, {"bytes": folder.data(1)}], []], "question": ["a", "b"]}
    Dataset.from_dict(rows, features).to_parquet(folder.path / "it.parquet")
    first, second = folder.open()
    assert [open_picture(each).getpixel((0, 0)) for each in first.pictures] == [(0, 0, 0), (1, 0, 0)]
    assert second.pictures == []


def test_pictures_in_another_folder(folder, tmp_path):
    table = Folder(tmp_path / "table", pictures=0).lines({"image": "1.png", "prompt": "a"})
    assert table.open(pictures=str(folder.path))[0].pictures == [folder.picture(1)]
    fails("no such folder of pictures", table.path, pictures=str(tmp_path / "nothing"))


def test_a_table_for_each_split(folder):
    folder.lines({"prompt": "a"}, name="train.jsonl").lines({"prompt": "b"}, {"prompt": "c"}, name="test.jsonl")
    assert texts(folder.open()) == ["a"] and texts(folder.open(split="test")) == ["b", "c"]
    assert texts(folder.open(split="test[1:]")) == ["c"]
    fails("none of test.jsonl, train.jsonl is called val", folder.path, split="val")


def test_a_folder_for_each_split_as_image_folders_have_them(tmp_path):
    for split in ("train", "test"):
        Folder(tmp_path / "it" / split).lines({"file_name": "0.png", "prompt": split}, name="metadata.jsonl")
    conversation = Folder(tmp_path / "it", pictures=0).open(split="test")[0]
    assert conversation.text == "test" and conversation.pictures == [str(tmp_path / "it/test/0.png")]


@pytest.mark.parametrize("split", ["train", "test"])
def test_parts_of_one_table(folder, split):
    for number in (0, 1):
        path = folder.path / f"{split}-0000{number}-of-00002.parquet"
        Dataset.from_dict({"prompt": [f"part {number}"]}).to_parquet(path)
    assert texts(folder.open()) == ["part 0", "part 1"]


def test_tables_that_do_not_fit_together(folder):
    folder.lines({"prompt": "a"}, name="a.jsonl").lines({"prompt": "b"}, name="b.jsonl")
    fails("none of a.jsonl, b.jsonl is called train: name the file", folder.path)
    assert texts(folder.open("b.jsonl")) == ["b"]
    (folder.path / "a.csv").write_text("prompt\na")
    fails(".csv and .jsonl cannot be read as one table", folder.path, split="a")


def test_a_changed_table_is_read_again(folder):
    before = folder.lines({"prompt": "a"}).open()
    after = folder.lines({"prompt": "b"}, {"prompt": "c"}).open()
    assert texts(before) == ["a"] and texts(after) == ["b", "c"]
    assert before.fingerprint() != after.fingerprint()


def test_types_that_change_late_in_a_table(folder):
    """`datasets` takes types from the first 10 MB alone; lists that come later would turn into text."""
    late = [{"type": "text", "text": "late"}]
    rows = [{"id": n, "messages": [{"role": "user", "content": "x" * 2**20}]} for n in range(11)]
    folder.lines(*rows, {"id": "last", "messages": [{"role": "user", "content": late}]})
    last = folder.open()[-1]
    assert last.text == "late" and last.key == "11/last"


# What is saved by `datasets`, and folders as the Hub has them


def test_a_saved_data_set(folder, tmp_path):
    rows = Dataset.from_dict({"image": [folder.picture(0)], "prompt": ["a"]}).cast_column("image", Image())
    rows.save_to_disk(tmp_path / "one")
    DatasetDict({"train": rows, "test": rows}).save_to_disk(tmp_path / "two")
    for name in ("one", "two"):
        conversation = open_source(Source(str(tmp_path / name)))[0]
        assert open_picture(conversation.pictures[0]).size == (4, 4) and conversation.text == "a"
    fails("no split 'val'; it has train, test", tmp_path / "two", split="val")
    assert texts(open_source(Source(str(tmp_path / "two"), split="test"))) == ["a"]
    (tmp_path / "one" / "state.json").write_text("{")
    fails("saved data set cannot be read", tmp_path / "one")


@pytest.fixture
def snapshot(tmp_path):
    """A folder as the Hub has it: configurations named in the README."""
    folder = Folder(tmp_path / "snapshot", pictures=0)
    folder.lines({"prompt": "a"}, name="one/test.jsonl").lines({"prompt": "b"}, name="two/test.jsonl")
    configs = "".join(f"- config_name: {name}\n  data_files: {name}/*\n" for name in ("one", "two"))
    (folder.path / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    return folder


def test_configurations(snapshot):
    assert texts(snapshot.open(subset="two", split="train")) == ["b"]
    fails("'three' not found", snapshot.path, subset="three")
    fails("Config name is missing.*'one', 'two'", snapshot.path)


@pytest.mark.parametrize("splits, read", [(["test"], "test"), (["train", "test"], "train")])
def test_the_only_split_is_read_where_none_is_asked_for(tmp_path, splits, read):
    folder = Folder(tmp_path / "snapshot", pictures=0)
    for split in splits:
        folder.lines({"prompt": split}, name=f"data/{split}.jsonl")
    (folder.path / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files:\n"
        + "".join(f"  - split: {split}\n    path: data/{split}.jsonl\n" for split in splits)
        + "---\n"
    )
    assert texts(folder.open()) == [read]
    assert texts(folder.open(split="test[:1]")) == ["test"]


def test_without_the_usual_split_the_others_are_named(tmp_path):
    rows = Dataset.from_dict({"prompt": ["a"]})
    DatasetDict({"val": rows, "test": rows}).save_to_disk(tmp_path / "two")
    fails("no split 'train'; it has val, test: choose one with --split", tmp_path / "two")


# Chat form


def test_chat_form_with_pictures_and_turns(folder):
    folder.lines(
        {
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": [{"type": "image", "image": "0.png"}, {"type": "text", "text": "What?"}]},
                {"role": "assistant", "content": [{"type": "text", "text": "A dot."}]},
                {"role": "user", "content": [{"type": "text", "text": "And?"}, {"type": "image", "image": "1.png"}]},
                {"role": "assistant", "content": "left out"},
            ]
        },
        {"messages": [{"role": "user", "content": "Hi"}]},
    )
    first, second = folder.open(append="Say much.")
    assert [m["role"] for m in first.messages] == ["system", "user", "assistant", "user"]
    assert first.pictures == [folder.picture(0), folder.picture(1)]
    assert first.text == "Be brief.\nWhat?\nA dot.\nAnd?\nSay much." and second.text == "Hi Say much."


def test_sharegpt_form_with_marks(folder):
    turns = [{"from": "human", "value": "What?\n<image>"}, {"from": "gpt", "value": "A dot."}]
    folder.lines({"id": "x", "image": "1.png", "conversations": turns}, {"id": 7, "conversations": turns})
    conversations = folder.open()
    assert conversations[0].messages[0]["content"] == [{"type": "text", "text": "What?"}, {"type": "image"}]
    assert conversations[0].key == "0/x" and conversations[0].pictures == [folder.picture(1)]
    with pytest.raises(UnusableSample, match="more places than pictures"):
        conversations[1]


def test_parts_with_keys_filled_up_and_pictures_within(folder):
    image = {"bytes": folder.data(1), "path": "somewhere.png"}
    parts = [{"type": "image", "image": image, "text": None}, {"type": "text", "image": None, "text": "a"}]
    part = {"type": Value("string"), "text": Value("string"), "image": Image()}
    features = Features({"messages": List({"role": Value("string"), "content": List(part)})})
    rows = Dataset.from_dict({"messages": [[{"role": "user", "content": parts}]]}, features)
    rows.to_parquet(folder.path / "it.parquet")
    conversation = folder.open()[0]
    assert open_picture(conversation.pictures[0]).getpixel((0, 0)) == (1, 0, 0)


# Rows that cannot be used


def test_unusable_rows_are_counted_by_reason(folder):
    folder.lines(
        {"image": "0.png", "prompt": "fine"},
        {"image": "gone.png", "prompt": "a"},
        {"image": ["0.png", None], "prompt": "a"},
        {"image": "https://example.org/a.png", "prompt": "a"},
        {"image": "data:image/png;base64,%%%", "prompt": "a"},
        {"image": "0.png", "prompt": "  "},
        {"image": "0.png", "prompt": None},
    )
    skipped = Counter()
    assert texts(folder.open().usable(skipped)) == ["fine"]
    assert skipped == {
        "picture missing": 2,
        "picture is not on this machine": 1,
        "picture of an unknown kind": 1,
        "no prompt": 2,
    }
    with pytest.raises(UnusableSample, match=r"picture missing: no such file: .*gone\.png") as caught:
        folder.open()[1]
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.reason, again.detail) == (caught.value.reason, caught.value.detail)


def test_cells_of_mixed_types(folder):
    folder.lines({"prompt": "a", "image": "0.png"}, {"prompt": 7, "image": 3}, {"prompt": "a", "image": {"x": 1}})
    skipped = Counter()
    assert texts(folder.open().usable(skipped)) == ["a"]
    assert skipped == {"prompt is not text": 1, "picture missing": 1}


# The sequence


def test_task_and_key(folder):
    features = Features(
        {"prompt": Value("string"), "task": datasets.ClassLabel(names=["x", "y"]), "id": Value("int8")}
    )
    rows = {"prompt": ["a", "b", "c"], "task": [1, 0, None], "id": [5, 5, None]}
    Dataset.from_dict(rows, features).to_parquet(folder.path / "it.parquet")
    conversations = folder.open()
    assert [each.task for each in conversations] == ["y", "x", "all"]
    assert [each.key for each in conversations] == ["0/5", "1/5", "2"]


def test_limit_skip_and_slices_keep_keys(folder):
    folder.lines(*({"prompt": str(n)} for n in range(10)))
    conversations = folder.open(skip=2, limit=5)
    assert texts(conversations) == list("23456") and conversations[0].key == "2"
    assert texts(conversations[1::2]) == list("35") and conversations[-1].key == "6"
    assert texts(folder.open(limit=99)) == texts(folder.open())
    with pytest.raises(IndexError):
        conversations[5]
    fails("no rows behind the first 10", folder.path, skip=10)
    for wrong in ({"limit": 0}, {"skip": -1}):
        fails("limit must be", folder.path, **wrong)


def test_fingerprints_differ_with_whatever_changes_a_conversation(folder):
    folder.lines(*({"prompt": str(n), "other": "x"} for n in range(4)))
    options = [{}, {"limit": 2}, {"skip": 1}, {"append": "."}, {"columns": Columns(prompt="other")}]
    prints = [folder.open(**each).fingerprint() for each in options]
    assert len(set(prints)) == len(prints)
    assert folder.open().fingerprint() == prints[0] and folder.open()[:2].fingerprint() == prints[1]


@pytest.mark.slow
def test_another_process_has_the_same_fingerprint_and_imports_nothing_heavy_before(folder, tmp_path):
    folder.lines({"prompt": "a", "task": "b", "id": "c"})
    code = f"""
import sys
from hf_mmspec.data import *
print([name for name in ("datasets", "hf_mmspec.demo") if name in sys.modules])
import datasets
datasets.config.HF_DATASETS_CACHE = {str(tmp_path / "other")!r}
print(open_source(Source({str(folder.path)!r})).fingerprint())
"""
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.splitlines() == ["[]", folder.open().fingerprint()]


def test_conversations_travel_to_worker_processes(folder):
    conversations = folder.lines({"prompt": "a"}, {"prompt": "b"}).open()
    assert texts(pickle.loads(pickle.dumps(conversations))) == ["a", "b"]


def test_pictures_are_not_opened(folder):
    (folder.path / "0.png").write_text("no picture")
    rows = Dataset.from_dict({"image": [folder.picture(0)], "prompt": ["a"]}).cast_column("image", Image())
    rows.save_to_disk(folder.path / "saved")
    assert folder.open("saved")[0].pictures == [b"no picture"]


# Errors before any work


def test_data_that_is_not_there(folder, tmp_path):
    fails("no such file or folder$", "./nothing")
    fails("no such file or folder$", tmp_path / "nothing.jsonl")
    fails("no such file or folder here, and the Hub cannot be reached", "nobody/nothing")
    fails("no table in this folder; add one, such as a prompts.jsonl", folder.path)
    fails("cannot be read as one table; a table is one of .jsonl", folder.picture(0))
    fails("no such file or folder here, and the Hub", "nothing", split="test", subset="x", revision="main")


def test_tables_that_cannot_be_read(folder):
    for content in ('{"prompt": "a"}\n{"prompt": ', "nonsense", ""):
        (folder.path / "prompts.jsonl").write_text(content)
        fails("prompts.jsonl: ", folder.path / "prompts.jsonl")
    (folder.path / "broken.parquet").write_bytes(b"PAR1 no")
    fails("broken.parquet: ", folder.path / "broken.parquet")


def test_unknown_split_of_a_table(folder):
    folder.lines({"prompt": "a"})
    fails(r'Unknown split "test"', folder.path, split="test")
    fails("is a table, which has no configurations", folder.path / "prompts.jsonl", subset="x")


# The embedded prompts


def test_embedded_tasks_take_turns():
    conversations = open_source(Source("embedded", split="test", limit=4, skip=1))
    tasks = ("chart", "dialog", "rewrite", "chat")
    assert [each.key for each in conversations] == [f"{task}/test/0" for task in tasks]
    assert open_source(Source("embedded", split="test", limit=1, skip=6))[0].key == "chart/test/1"
    assert isinstance(conversations[0].pictures[0], PILImage.Image)
    assert open_source(Source("embedded:chart", split="test", limit=1))[0].messages == conversations[0].messages


def test_embedded_answers_can_be_graded():
    from hf_mmspec.demo import grade, samples

    sample = next(iter(samples("test", "scene", 1)))
    conversation = open_source(Source("embedded:scene", split="test", limit=1, append="Be brief."))[0]
    assert grade(dict(conversation.grading), sample["answer"])["score"] == 1.0
    assert conversation.task == "scene" and conversation.text.endswith(" Be brief.")


def test_embedded_text():
    splits = {split: texts(open_source(Source("embedded:text", split=split))) for split in ("train", "val", "test")}
    assert {split: len(each) for split, each in splits.items()} == {"train": 2140, "val": 240, "test": 140}
    assert len(set().union(*splits.values())) == 2520
    assert open_source(Source("embedded:text"))[3].key == "text/train/3"


def test_embedded_prompts_about_several_pictures():
    two = open_source(Source("embedded:pictures-2", split="val", limit=3))
    assert [len(conversation.pictures) for conversation in two] == [2, 2, 2]
    assert [conversation.task for conversation in two] == ["scene", "dialog", "rewrite"]
    assert two[1].key == "pictures-2/val/1"
    fails("choose one of", "embedded:pictures-9", limit=1)


def test_embedded_errors():
    fails("never ends: say how many with --limit", "embedded")
    fails(
        "embedded:y: choose one of scene, chart, dialog, rewrite, chat, text, pictures-0 to pictures-8", "embedded:y"
    )
    fails("no split 'x': choose one of train, val, test", "embedded", split="x", limit=1)
    assert (
        open_source(Source("embedded", limit=2)).fingerprint()
        != open_source(Source("embedded", limit=3)).fingerprint()
    )
