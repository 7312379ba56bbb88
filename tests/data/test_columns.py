"""Columns are guessed where that is safe; everything else is one clear error."""

import pytest
from datasets import ClassLabel, Features, Image, List, Value

from hf_mmspec.data import Columns, DataError
from hf_mmspec.data.columns import find_columns, holds_paths

TEXT, NUMBER = Value("string"), Value("int64")
CHAT = List({"role": TEXT, "content": TEXT})


def found(asked=None, **features):
    return find_columns(asked or Columns(), Features(features), "it")


@pytest.mark.parametrize("name", ["prompt", "question", "instruction", "query", "Question", "text"])
def test_well_known_prompts(name):
    assert found(**{name: TEXT, "answer": TEXT}) == Columns(prompt=name)


@pytest.mark.parametrize("name", ["image", "images", "image_path", "file_name", "img", "picture"])
@pytest.mark.parametrize("feature", [TEXT, Image(), List(Image()), List(TEXT), Value("binary"), Value("null")])
def test_well_known_pictures(name, feature):
    assert found(**{name: feature, "prompt": TEXT}) == Columns(prompt="prompt", image=name)


def test_messages_task_and_id():
    assert found(messages=CHAT, category=ClassLabel(names=["a"]), id=NUMBER) == Columns(
        messages="messages", task="category", id="id"
    )
    assert found(conversations=CHAT).messages == "conversations"


def test_a_name_given_is_taken_and_ends_the_guessing_of_its_role():
    asked = Columns(prompt="b", image="second")
    assert found(asked, b=TEXT, prompt=TEXT, first=TEXT, second=TEXT, image=TEXT) == asked


@pytest.mark.parametrize(
    ("features", "words"),
    [
        ({"prompt": TEXT, "question": TEXT}, r"'prompt', 'question'.*--prompt-column"),
        ({"prompt": TEXT, "messages": CHAT}, r"'prompt', 'messages'.*--prompt-column or --messages-column"),
        ({"prompt": TEXT, "image": TEXT, "images": TEXT}, r"'image', 'images'.*--image-column"),
        ({"prompt": TEXT, "id": TEXT, "question_id": TEXT}, r"'id', 'question_id'.*--id-column"),
        ({"caption": TEXT, "image": Image()}, r"'caption', 'image'.*--prompt-column"),
        ({"text": TEXT, "image": Image()}, r"no column known to hold prompts.*--prompt-column"),
        ({"prompt": NUMBER}, r"'prompt' must hold text .*not int64"),
        ({"prompt": CHAT}, r"'prompt' must hold text.*for whole conversations use --messages-column"),
        ({"messages": TEXT}, r"'messages' must hold lists of messages .*not string"),
        ({"prompt": TEXT, "image": NUMBER}, r"'image' must hold pictures.*not int64"),
        ({"prompt": TEXT, "image": List(List(TEXT))}, r"'image' must hold pictures.*not List"),
        ({"prompt": TEXT, "task": Value("float32")}, r"'task' must hold names.*not float32"),
    ],
)
def test_doubt_is_an_error_that_names_columns_and_options(features, words):
    with pytest.raises(DataError, match=words) as caught:
        found(**features)
    assert str(caught.value).startswith("it") and "\n" not in str(caught.value)


def test_names_given_wrongly():
    with pytest.raises(DataError, match=r"no column 'x' \(--task-column\); it has 'prompt'"):
        found(Columns(task="x"), prompt=TEXT)
    with pytest.raises(DataError, match="not both"):
        found(Columns(prompt="a", messages="b"), a=TEXT, b=CHAT)


def test_columns_of_paths_are_told_from_columns_of_pictures():
    assert holds_paths(TEXT) and holds_paths(List(TEXT))
    assert not any(holds_paths(feature) for feature in (Image(), List(Image()), Value("binary")))
