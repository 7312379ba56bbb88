"""Tiny local copies of the public sets, with the columns that each is known for, become conversations."""

from string import Formatter

import pytest
from datasets import Dataset, Features, Image, List, Value

from hf_mmspec.data import Columns, DataError, Source, UnusableSample, open_picture, open_source
from hf_mmspec.data.public_sets import LONG, PUBLIC_SETS

TEXT = Value("string")
TURNS = [{"from": "human", "value": "Describe it.\n<image>"}, {"from": "gpt", "value": "No."}]


def stored(folder, rows, **features):
    """A parquet file with pictures in it, as sets of the Hub are."""
    kinds = Features({name: features.get(name, TEXT) for name in rows})
    Dataset.from_dict(rows, kinds).to_parquet(folder.path / "it.parquet")
    return folder


def public(name, path, **options):
    return open_source(Source(f"{name}={path}", **options))


def only(conversations):
    (one,) = conversations
    return one


def colour(conversation, number=0):
    return open_picture(conversation.pictures[number]).getpixel((0, 0))


DESCRIBE = "Provide a detailed description of the given image."
MME = {"question": "Is it? Yes or no.", "question_id": "a/1.png", "category": "OCR"}
QUESTIONS = {  # the row without its picture, and what becomes of it: text, task, key
    "mmvet": ({"question": "What?"}, "What?", "mmvet", "0"),
    "textvqa": ({"question": "What?", "question_id": "q7"}, "What?", "textvqa", "0/q7"),
    "vizwiz": ({"question": "What?", "question_id": "q7"}, "What?", "vizwiz", "0/q7"),
    "mme": (MME, "Is it? Yes or no.", "OCR", "0/a/1.png"),
    "coco-caption": ({"question_id": "1.jpg"}, DESCRIBE, "coco-caption", "0/1.jpg"),
    "charxiv": ({"reasoning_q": "Which line?"}, "Which line?", "charxiv", "0"),
    "seed-bench": (
        {"question": "Who?", "question_id": "1", "data_type": "image"} | {f"choice_{c}": f"{c}!" for c in "abcd"},
        "Who?\nA. a!\nB. b!\nC. c!\nD. d!",
        "image",
        "0/1",
    ),
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_a_question_and_a_picture(folder, name):
    row, text, task, key = QUESTIONS[name]
    rows = {column: [value] for column, value in row.items()} | {"image": [{"bytes": folder.data(1)}], "answer": ["x"]}
    one = only(public(name, stored(folder, rows, image=Image()).path))
    assert (one.text, one.task, one.key) == (text, task, key) and colour(one) == (1, 0, 0)
    assert one.messages[0]["content"][0] == {"type": "image"}


def test_several_pictures_in_one_cell(folder):
    rows = {"question": ["Who?"], "question_id": ["1"], "data_type": ["video"]} | {f"choice_{c}": [c] for c in "abcd"}
    rows["image"] = [[{"bytes": folder.data(0)}, {"bytes": folder.data(1)}]]
    one = only(public("seed-bench", stored(folder, rows, image=List(Image())).path))
    assert [colour(one, 0), colour(one, 1)] == [(0, 0, 0), (1, 0, 0)]


def test_scienceqa(folder):
    rows = {"image": [{"bytes": folder.data(1)}, None], "question": ["Which?"] * 2, "hint": ["Look.", ""]}
    rows["choices"] = [["cat", "dog"]] * 2
    first, second = public("scienceqa", stored(folder, rows, image=Image(), choices=List(TEXT)).path)
    assert first.text == "Context: Look.\nWhich?\nA. cat\nB. dog" and len(first.pictures) == 1
    assert second.text == "Which?\nA. cat\nB. dog" and not second.pictures


def test_mmmu_pro_has_places_in_question_and_options(folder):
    pictures = {f"image_{i}": [{"bytes": folder.data(i - 1)} if i < 3 else None] for i in range(1, 8)}
    rows = {"id": ["m1"], "subject": ["Art"], "question": ["See <image 2> and <image 1>?"]}
    rows |= {"options": ["['one', '<image 2>']"], **pictures}
    one = only(public("mmmu-pro", stored(folder, rows, **dict.fromkeys(pictures, Image())).path))
    kinds = [part.get("text", "image") for part in one.messages[0]["content"]]
    assert kinds == ["See ", "image", " and ", "image", "?\nA. one\nB. ", "image"]
    assert [colour(one, i) for i in range(3)] == [(1, 0, 0), (0, 0, 0), (1, 0, 0)]
    assert (one.task, one.key) == ("Art", "0/m1")


def gqa(folder, ids):
    """Pictures in a configuration of their own, as the Hub's folder has them."""
    configs = ""
    for subset, rows in {
        "testdev_balanced_instructions": {"id": ["q"] * len(ids), "imageId": ids, "question": ["What?"] * len(ids)},
        "testdev_balanced_images": {"id": ["n1", "n0"], "image": [{"bytes": folder.data(i)} for i in (1, 0)]},
    }.items():
        (folder.path / subset).mkdir()
        features = Features({name: Image() if name == "image" else TEXT for name in rows})
        Dataset.from_dict(rows, features).to_parquet(folder.path / subset / "testdev-00000-of-00001.parquet")
        data_files = f"  data_files:\n  - split: testdev\n    path: {subset}/*\n"
        configs += f"- config_name: {subset}\n{data_files}"
    (folder.path / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    return public("gqa", folder.path)


def test_gqa_finds_its_pictures_in_the_other_configuration(folder):
    conversations = gqa(folder, ["n0", "n1", "n7"])
    assert [colour(conversations[i]) for i in (0, 1)] == [(0, 0, 0), (1, 0, 0)]
    assert conversations[1].text == "What?" and conversations[1].key == "1/q"
    with pytest.raises(UnusableSample, match="picture missing: no picture with id 'n7'"):
        conversations[2]


@pytest.mark.parametrize("name", ["llava-pretrain", "llava-mix665k", "llava-instruct-150k"])
def test_llava_in_its_own_files(folder, name):
    rows = [{"id": str(n) if n else n, "image": "1.png", "conversations": TURNS} for n in range(5)]
    folder.lines(*rows, name=PUBLIC_SETS[name].file).lines({"x": 1}, name="another.jsonl")
    conversations = public(name, folder.path)
    one = conversations[0]
    assert one.messages[0]["content"][-1]["type"] == ("text" if name == "llava-pretrain" else "image")
    assert one.text == ("Describe it.\n" + LONG if name == "llava-pretrain" else "Describe it.")
    assert one.pictures == [folder.picture(1)]
    order = [int(each.key.split("/")[1]) for each in conversations]
    assert order == Dataset.from_dict({"id": range(5)}).shuffle(seed=42)["id"], "the papers' shuffle"
    assert public(name, folder.path, append="Briefly.")[0].text == "Describe it.\nBriefly."


def test_llava_rows_without_a_picture(folder):
    turns = [{"from": "human", "value": "Hi"}]
    folder.lines(
        {"id": 1, "image": "1.png", "conversations": TURNS}, {"id": "b", "conversations": turns}, name="a.json"
    )
    assert sorted(len(each.pictures) for each in public("llava-mix665k", folder.path / "a.json")) == [0, 1]


def test_sharegpt(folder):
    turns = [("human", "1"), ("gpt", "2"), ("human", "3"), ("gpt", "4")]
    rows = {"id": "x", "conversations": [{"from": who, "value": value} for who, value in turns]}
    one = only(public("sharegpt", folder.lines(rows).path))
    assert one.text == "1\n2\n3" and one.task == "sharegpt"


def test_evaluation_files_of_llava(folder):
    row = {"question_id": 7, "image": "1.png", "text": "What?\nAnswer the question using a single word or phrase."}
    one = only(public("llava-eval", folder.lines(row, name="llava_gqa_testdev_balanced.jsonl").path))
    assert (one.text, one.key, one.pictures) == ("What?", "0/7", [folder.picture(1)])


def test_mmspec_asks_the_first_turn(folder):
    (folder.path / "images/text_vqa").mkdir(parents=True)
    (folder.path / "1.png").rename(folder.path / "images/text_vqa/1.png")
    row = {
        "id": "img_1",
        "image": "text_vqa/1.png",
        "turns": ["First?", "Second?"],
        "category": "c",
        "topic": "text vqa",
    }
    one = only(public("mmspec", folder.lines(row, name="mmspec.jsonl").path))
    assert (one.text, one.task, one.key) == ("First?", "text vqa", "0/img_1")
    assert one.pictures == [str(folder.path / "images/text_vqa/1.png")]


def test_limits_of_the_papers_give_way_to_the_users(folder):
    folder.lines(*({"id": n, "image": "1.png", "conversations": TURNS} for n in range(5)))
    assert len(public("llava-pretrain", folder.path)) == 5
    assert len(public("llava-pretrain", folder.path, limit=2)) == 2
    assert public("llava-pretrain", folder.path).fingerprint() != folder.open().fingerprint()


def test_a_copy_without_its_columns(folder):
    folder.lines({"image": "1.png", "question": "What?"})
    with pytest.raises(DataError, match=r"is no scienceqa: it lacks 'hint', 'choices'; it has 'image', 'question'"):
        public("scienceqa", folder.path)
    with pytest.raises(DataError, match=r"'question_id'"):
        public("textvqa", folder.path)


def test_columns_of_public_sets_are_not_for_choosing(folder):
    with pytest.raises(DataError, match="the columns of mmvet are known; to choose others, name the data without"):
        public("mmvet", folder.path, columns=Columns(prompt="question"))


def test_an_empty_cell_is_no_prompt(folder):
    folder.lines({"image": "1.png", "question": None}, {"image": "1.png", "question": "What?"})
    with pytest.raises(UnusableSample, match="no prompt"):
        public("mmvet", folder.path)[0]


def test_sets_that_are_not_here():
    with pytest.raises(
        DataError, match="lmms-lab/textvqa: no such file or folder here, and the Hub cannot be reached"
    ):
        open_source(Source("textvqa"))
    with pytest.raises(DataError, match="mmspec is not on the Hub: say where it is with mmspec=PATH"):
        open_source(Source("mmspec"))


def test_paths_without_a_folder_are_refused_before_any_row(folder, monkeypatch):
    """The Hub's LLaVA tables name pictures that they do not hold."""
    rows = Dataset.from_list([{"id": "1", "image": "1.png", "conversations": TURNS}])
    monkeypatch.setattr("datasets.load_dataset", lambda *_, **__: rows)
    with pytest.raises(DataError, match="LLaVA-Pretrain holds paths of pictures: say with --pictures which folder"):
        open_source(Source("llava-pretrain"))
    assert open_source(Source("llava-pretrain", pictures=str(folder.path)))[0].pictures == [folder.picture(1)]
    with pytest.raises(DataError, match="column 'image' holds paths"):
        open_source(Source("somebody/something"))
    row = {"prompt": "a", "image": "../mine/1.png"}
    monkeypatch.setattr("datasets.load_dataset", lambda *_, **__: Dataset.from_list([row]))
    (folder.path / "sub").mkdir()
    with pytest.raises(UnusableSample, match="picture outside its folder"):
        open_source(Source("somebody/something", pictures=str(folder.path / "sub")))[0]


@pytest.mark.parametrize("name", PUBLIC_SETS)
def test_every_set_says_where_it_is_what_it_needs_and_who_uses_it(name):
    known = PUBLIC_SETS[name]
    assert known.used_by and known.schema and (known.hub is None or known.hub.count("/") == 1)
    assert known.columns != Columns() and known.columns_read
    if isinstance(known.prompt, str):
        assert all(field in known.columns_read for _, field, _, _ in Formatter().parse(known.prompt) if field) or (
            known.columns.messages
        )
