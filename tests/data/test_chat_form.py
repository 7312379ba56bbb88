"""Whatever form a conversation has, its places get its pictures, in order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_mmspec.data import Conversation, UnusableSample
from hf_mmspec.data.chat_form import append_text, read_chat

HI = {"role": "user", "content": "hi"}


def text(words):
    return {"type": "text", "text": words}


PLACE = {"type": "image"}


def reason(raw, pictures=()):
    with pytest.raises(UnusableSample) as caught:
        read_chat(raw, pictures)
    return caught.value.reason


def test_content_as_text_and_as_parts():
    for content in ("hi", ["hi"], [text("hi")], [{"type": "text", "text": "hi", "image": None, "image_url": None}]):
        assert read_chat([{"role": "user", "content": content}]) == ([{"role": "user", "content": [text("hi")]}], [])


def test_pictures_in_parts():
    parts = [
        {"type": "image", "image": "a", "text": None},
        {"type": "image_url", "image_url": {"url": "b"}},
        {"type": "image_url", "image_url": "c"},
        {"type": "image", "path": "d"},
        {"type": "image", "url": "e"},
        text("hi"),
    ]
    messages, pictures = read_chat([{"role": "user", "content": parts}])
    assert pictures == list("abcde") and messages[0]["content"] == [PLACE] * 5 + [text("hi")]


def test_marks_of_llava_are_places_there_and_words_elsewhere():
    messages, pictures = read_chat([{"from": "human", "value": "<image>\nFirst?\n<image>"}], ["a", "b"])
    assert messages[0]["content"] == [PLACE, text("First?"), PLACE] and pictures == ["a", "b"]
    assert read_chat([{"role": "user", "content": "What is <image>?"}])[0][0]["content"] == [text("What is <image>?")]


def test_the_target_gives_the_last_answer_and_earlier_ones_stay():
    turns = [("system", "s"), ("gpt", "left out"), ("human", "1"), ("gpt", "2"), ("human", "3"), ("gpt", "left out")]
    messages, _ = read_chat([{"from": name, "value": value} for name, value in turns])
    assert [(m["role"], m["content"][0]["text"]) for m in messages] == [
        ("system", "s"),
        ("user", "1"),
        ("assistant", "2"),
        ("user", "3"),
    ]


def test_pictures_of_answers_that_are_left_out_go_with_them():
    raw = [HI, {"role": "assistant", "content": [PLACE]}]
    assert read_chat(raw, ["drawn"]) == ([{"role": "user", "content": [text("hi")]}], [])


def test_pictures_without_places_go_before_the_first_user_message():
    messages, pictures = read_chat([{"role": "system", "content": "s"}, HI, HI], ["a", "b"])
    assert [len(m["content"]) for m in messages] == [1, 3, 1] and messages[1]["content"][0] == PLACE
    assert pictures == ["a", "b"]


def test_places_with_numbers():
    content = [{"type": "image", "index": 1}, text("and"), {"type": "image", "index": 0}]
    assert read_chat([{"role": "user", "content": content}], ["a", "b"])[1] == ["b", "a"]


def test_columns_of_a_struct_as_older_datasets_keep_them():
    messages, _ = read_chat({"from": ["human", "gpt"], "value": ["hi", "ho"]})
    assert messages == [{"role": "user", "content": [text("hi")]}]


def test_reasons():
    user = {"role": "user"}
    assert reason([]) == "no user message"
    assert reason([{"role": "assistant", "content": "hi"}]) == "no user message"
    assert reason([{**user, "content": " \n"}]) == "no prompt"
    assert reason([{**user, "content": [{"type": "image", "image": "a"}]}]) == "no prompt"
    assert reason([{"role": "tool", "content": "hi"}]) == "unknown message role"
    assert reason([{"role": ["user"], "content": "hi"}]) == "unknown message role"
    assert reason([{**user, "content": [{"type": "video", "video": "a"}]}]) == "unknown message part"
    assert reason([{**user, "content": [{"type": "text", "text": None}]}]) == "unknown message part"
    assert reason([{**user, "content": [7]}]) == "unknown message part"
    assert (
        reason([{**user, "content": [{"type": "image", "index": 5}, text("hi")]}], ["a"])
        == "more pictures than places"
    )
    assert reason([{**user, "content": [PLACE, text("hi")]}]) == "more places than pictures"
    assert reason([{**user, "content": [PLACE, text("hi")]}], ["a", "b"]) == "more pictures than places"
    assert reason([{"from": "human", "value": "<image>hi"}], []) == "more places than pictures"
    for raw in ("hi", None, 3, [3], [{"content": "hi"}], [{**user, "content": None}], [{"from": "human"}]):
        assert reason(raw) == "messages of an unknown form"


def test_text_is_put_behind_the_last_message():
    messages = [HI, {"role": "user", "content": [PLACE, text("Describe.")]}]
    assert append_text(messages, "At length.")[1]["content"] == [PLACE, text("Describe. At length.")]
    assert append_text([{"role": "user", "content": [text("x"), PLACE]}], "y")[0]["content"][-1] == text("y")
    assert messages[1]["content"][1] == text("Describe.")


words = st.text("ab <>", max_size=5)
own = st.builds(lambda value: {"type": "image", "image": value}, st.sampled_from(["x", "y"]))
parts = st.lists(st.one_of(st.builds(text, words), own, st.just(PLACE)), max_size=4)
openai = st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "system"]), "content": parts | words})
sharegpt = st.fixed_dictionaries(
    {"from": st.sampled_from(["human", "gpt"]), "value": st.lists(words | st.just("<image>")).map("".join)}
)


@given(st.lists(openai | sharegpt, max_size=5), st.lists(st.sampled_from(["p", "q"]), max_size=4))
def test_places_and_pictures_always_agree(raw, given_pictures):
    try:
        messages, pictures = read_chat(raw, given_pictures)
    except UnusableSample:
        return
    conversation = Conversation(messages, pictures)  # raises if places and pictures differ
    assert messages[-1]["role"] == "user" and conversation.text.strip()
    assert {m["role"] for m in messages} <= {"user", "assistant", "system"}
    assert read_chat(messages, pictures) == (messages, pictures), "what is read can be read again"


@given(st.lists(words | st.just("<image>"), min_size=1))
def test_marks_become_that_many_places_and_no_word_is_lost(pieces):
    value = "".join(pieces)
    marks = value.count("<image>")
    try:
        messages, pictures = read_chat([{"from": "human", "value": value}], list(range(marks)))
    except UnusableSample as error:
        assert error.reason == "no prompt" and not value.replace("<image>", "").strip()
        return
    assert pictures == list(range(marks))
    said = "".join(part["text"] for part in messages[0]["content"] if part["type"] == "text")
    assert "".join(said.split()) == "".join(value.replace("<image>", "").split())
