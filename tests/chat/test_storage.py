"""A saved chat goes on where it was, in another process too; a broken file is one clear line."""

import json
import os
import stat

import pytest

from hf_mmspec.chat import Chat, ChatFileError

from . import tiny
from .test_history import ask


def saved(chat, path):
    ask(chat, "What is this?", [tiny.picture(0)])
    ask(chat, "«Ünïcode» \x1b[31m, and two lines\nof it", [tiny.picture(1), tiny.picture(2)])
    chat.save(path)
    return path


def test_there_and_back(chat, llava, tmp_path):
    loaded = Chat.load(saved(chat, tmp_path / "chat.json"), *llava)
    assert [each["role"] for each in loaded.messages] == ["user", "assistant"] * 2
    for ours, theirs in zip(loaded.messages, chat.messages, strict=True):
        for mine, its in zip(ours["content"], theirs["content"], strict=True):
            assert mine["type"] == its["type"] and mine.get("text") == its.get("text")
            assert mine["type"] == "text" or mine["image"].tobytes() == its["image"].tobytes()
    first, second = ask(loaded, "On?", draft_depth=None), ask(chat, "On?")
    assert first.ids == second.ids and first.reused == 0


def test_a_file_is_written_as_a_whole_or_not_at_all(chat, tmp_path, monkeypatch):
    path = saved(chat, tmp_path / "chat.json")
    before = path.read_bytes()

    def breaks(*_, **__):
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", breaks)
        with pytest.raises(OSError, match="no space"):
            chat.save(path)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["chat.json"]
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask
    with pytest.raises(OSError):
        chat.save(tmp_path / "nowhere" / "chat.json")


USER = {"role": "user", "content": [{"type": "text", "text": "?"}]}
BROKEN = {
    "not JSON": "{",
    "not a chat": "[]",
    "another format": json.dumps({"format": "other"}),
    "a later version": json.dumps({"format": "hf_mmspec.chat", "version": 2}),
    "no messages": json.dumps({"format": "hf_mmspec.chat", "version": 1}),
    "deep": "[" * 100_000,
}
MESSAGES = {
    "role": [{"role": "root", "content": []}],
    "content": [{"role": "user", "content": "text"}],
    "part": [{"role": "user", "content": [{"type": "video"}]}],
    "text": [{"role": "user", "content": [{"type": "text", "text": 3}]}],
    "picture": [{"role": "user", "content": [{"type": "image", "png": "AAAA"}]}],
    "base64": [{"role": "user", "content": [{"type": "image", "png": "?"}]}],
    "no answer": [USER],
    "order": [{**USER, "role": "assistant"}, USER],
}


@pytest.mark.parametrize("name", [*BROKEN, *MESSAGES])
def test_broken_files(name, llava, tmp_path):
    content = BROKEN.get(name) or json.dumps({"format": "hf_mmspec.chat", "version": 1, "messages": MESSAGES[name]})
    path = tmp_path / "chat.json"
    path.write_text(content)
    with pytest.raises(ChatFileError, match=r"chat\.json"):
        Chat.load(path, *llava)


def test_bytes_that_are_no_text(llava, tmp_path):
    (tmp_path / "chat.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ChatFileError, match="not a saved chat"):
        Chat.load(tmp_path / "chat.json", *llava)
