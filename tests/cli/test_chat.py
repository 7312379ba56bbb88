"""`mmspec chat`: several turns, pictures by path, commands, bad input and Ctrl-C; nothing ends it but the user."""

import json
import signal

import pytest

from hf_mmspec.chat import Chat
from hf_mmspec.console import chat as console_chat
from tests.chat.tiny import picture

LIMIT = ("--max-new-tokens", "6")


@pytest.fixture
def talk(loaded, monkeypatch, tmp_path):
    """Runs `mmspec chat` on lines in an empty folder with a picture; returns its result."""
    from typer.testing import CliRunner

    from hf_mmspec.cli import app

    monkeypatch.chdir(tmp_path)
    picture(0).save(tmp_path / "my photo.png")

    def invoke(*lines, options=LIMIT):
        result = CliRunner().invoke(app, ["chat", *options], input="".join(f"{line}\n" for line in lines))
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return invoke


def test_turns_with_pictures(talk):
    result = talk("/image my photo.png", "What is this?", "And now?", "/quit", "never asked")
    assert result.exit_code == 0, result.output
    assert "24 x 16 pixels" in result.output
    assert result.output.count("first token after") == result.output.count(" tokens/s · L ") == 2
    assert "(0 kept)" not in result.output and ", 0 kept)" in result.output


@pytest.mark.parametrize("path", ["'my photo.png'", '"my photo.png"', r"my\ photo.png", "my photo.png"])
def test_paths_with_spaces(talk, path):
    assert "24 x 16 pixels" in talk(f"/image {path}").output


def test_bad_input_is_a_line_and_the_chat_goes_on(talk, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    bad = {
        "/image nowhere.png": "nowhere.png: no such file",
        "/image broken.png": "broken.png: not an image",
        "/image": "which picture?",
        "/image 'open quote": "no such file",
        "/save": "where to?",
        "/save no/such/folder/file": "No such file or directory",
        "/undo": "nothing was asked yet",
        "/again": "nothing was asked yet",
        "/imagine": "/imagine is no command",
        "an <image> in words": "reads as a place for a picture",
        "": "",
    }
    result = talk(*bad, "Still there?")
    lines = result.output.splitlines()
    errors = [line for line in lines if line.startswith("error:")]
    assert result.exit_code == 0 and len(errors) == len(bad) - 1
    for line, message in zip(errors, bad.values(), strict=False):
        assert message in line
    assert "first token after" in lines[-1]


def test_a_picture_waits_where_its_question_was_refused(talk):
    result = talk("/image my photo.png", "an <image>?", "a picture?", "/save saved", "/quit")
    assert result.output.count("error:") == 1
    with open("saved") as file:
        parts = json.load(file)["messages"][0]["content"]
    assert [part["type"] for part in parts] == ["image", "text"]


def test_save_undo_again_and_resume(talk):
    result = talk("One?", "Two?", "/undo", "/again", "/save chat.json")
    assert "taken back: Two?" in result.output and "saved: chat.json" in result.output
    result = talk("Three?", "/save chat.json", options=(*LIMIT, "--resume", "chat.json"))
    assert result.exit_code == 0
    with open("chat.json") as file:
        messages = json.load(file)["messages"]
    assert [m["content"][0]["text"] for m in messages if m["role"] == "user"] == ["One?", "Three?"]


def test_a_system_message_and_a_picture_for_the_first_question(talk):
    result = talk("Hm?", "/save c", options=(*LIMIT, "--system", "Be brief.", "--image", "my photo.png"))
    assert result.exit_code == 0, result.output
    with open("c") as file:
        first, question, _ = json.load(file)["messages"]
    assert first["content"] == [{"type": "text", "text": "Be brief."}] and question["content"][0]["type"] == "image"
    assert "leave out --system" in talk(options=("--system", "x", "--resume", "c")).output


def test_a_broken_chat_is_noticed_before_anything_is_loaded(talk, loaded, tmp_path):
    (tmp_path / "chat.json").write_text("{")
    result = talk(options=("--resume", "chat.json"))
    assert result.exit_code == 2 and "not a saved chat" in result.output and not loaded


def test_a_model_without_a_drafter(talk, loaded):
    result = talk("Hm?", options=(*LIMIT, "--model", "m"))
    assert "without a drafter" in result.output and " L " not in result.output and "tokens/s" in result.output
    assert loaded == ["m"]


def test_ctrl_c_ends_an_answer_and_a_second_one_takes_it_back(talk, monkeypatch):
    """The first question is stopped after its first token, the second is interrupted, the third is answered."""
    presses = {"Stop?": 1, "Break?": 2, "Go?": 0}
    ask = Chat.ask

    class Presses:
        def __init__(self, streamer, count):
            self._streamer, self._count, self._puts = streamer, count, 0

        def put(self, value):
            self._puts += 1
            self._streamer.put(value)
            if self._puts == 2:  # the prompt comes first
                for _ in range(self._count):
                    signal.raise_signal(signal.SIGINT)

        def end(self):
            self._streamer.end()

    def pressed(self, text, images, streamer, **kwargs):
        return ask(self, text, images, streamer=Presses(streamer, presses[text]), **kwargs)

    monkeypatch.setattr(Chat, "ask", pressed)
    before = signal.getsignal(signal.SIGINT)
    result = talk("Stop?", "Break?", "Go?", "/save c")
    assert result.exit_code == 0 and signal.getsignal(signal.SIGINT) is before
    assert "2 tokens" in result.output and "· stopped" in result.output
    assert "error: interrupted: the question was taken back" in result.output
    with open("c") as file:
        messages = json.load(file)["messages"]
    assert [m["content"][0]["text"] for m in messages if m["role"] == "user"] == ["Stop?", "Go?"]


def test_ctrl_c_at_the_prompt_only_ends_the_line(talk, monkeypatch):
    lines = iter([KeyboardInterrupt, "Hm?", EOFError])

    def line():
        given = next(lines)
        if isinstance(given, str):
            return given
        raise given

    monkeypatch.setattr(console_chat, "_ask_for_line", line)
    result = talk()
    assert "ends the chat" in result.output and "first token after" in result.output


def test_control_sequences_of_the_model_do_not_reach_the_terminal(talk, tiny_models, monkeypatch):
    """An answer of escape characters only."""
    target, processor, _ = tiny_models
    escape = processor.tokenizer("\x1b")["input_ids"]
    monkeypatch.setattr(target.generation_config, "suppress_tokens", [i for i in range(260) if i not in escape])
    result = talk("Hm?")
    assert "\x1b" not in result.output and "\N{REPLACEMENT CHARACTER}" in result.output
