"""A turn happens as a whole or not at all, however it ends; and the next one is right."""

import threading

import pytest
import torch
from transformers import StoppingCriteria, TextIteratorStreamer

from hf_mmspec.chat import Chat
from hf_mmspec.chat import chat as module
from hf_mmspec.modeling import ViSpecDrafter

from . import tiny
from .test_history import ARGUMENTS, ask, text_of


class Stops(StoppingCriteria):
    """Does something at the given token."""

    def __init__(self, at, action):
        self._left, self._action = at, action

    def __call__(self, input_ids, scores, **kwargs):
        self._left -= 1
        return torch.tensor([self._left == 0 and bool(self._action())])


def fails(error):
    def action():
        raise error

    return action


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("out of memory")], ids=["ctrl-c", "error"])
@pytest.mark.parametrize("at", [1, 2, 4])
@pytest.mark.parametrize("drafts", [True, False], ids=["drafter", "stock"])
def test_an_exception_takes_the_question_back(llava, error, at, drafts):
    """In the prefill's token, in a round, behind a picture; what was cached before stays."""
    model, processor = llava
    chat = Chat(model, processor, tiny.build_drafter("vispec", model) if drafts else None)
    arguments = ARGUMENTS if drafts else dict(max_new_tokens=6, do_sample=False)
    chat.ask("One", [tiny.picture(0)], **arguments)
    messages = list(chat.messages)
    with pytest.raises(type(error)):
        chat.ask("Two", [tiny.picture(1)], stopping_criteria=[Stops(at, fails(error))], **arguments)
    assert chat.messages == messages
    reply = chat.ask("Two", [tiny.picture(2)], **arguments)
    assert reply.ids == tiny.scratch(chat, chat.messages[:-1], max_new_tokens=6) and reply.reused > 144


@pytest.mark.parametrize("where", ["resume", "propose", "extend"])
def test_a_drafter_that_breaks(llava, where, monkeypatch):
    """Half of its rows are written when it breaks; the next turn drafts as if that had not been."""
    model, processor = llava
    drafter = tiny.build_drafter("vispec", model)
    chat, other = (Chat(model, processor, drafter) for _ in range(2))
    for each in (chat, other):
        each.ask("One", [tiny.picture(0)], **ARGUMENTS)
    method = getattr(ViSpecDrafter, where)

    def breaks(self, *args, **kwargs):
        method(self, *args, **kwargs)
        raise RuntimeError("broken")

    with monkeypatch.context() as patch:
        patch.setattr(ViSpecDrafter, where, breaks)
        with pytest.raises(RuntimeError, match="broken"):
            chat.ask("Two", **ARGUMENTS)
    assert ask(chat, "Three").speculation.accepted == ask(other, "Three").speculation.accepted
    ours, theirs = (each._cache._draft_state for each in (chat, other))
    assert ours.slots == theirs.slots
    torch.testing.assert_close(ours.cache.rows(0), theirs.cache.rows(0))


def test_stop_keeps_what_was_said(chat):
    reply = chat.ask("One", [tiny.picture(0)], stopping_criteria=[Stops(3, lambda: chat.stop())], **ARGUMENTS)
    assert reply.was_stopped and len(reply.ids) in (3, 4)
    assert text_of(chat.messages[-1]) == reply.text
    assert not ask(chat, "Two").was_stopped


def test_criteria_and_limits_keep_what_was_said(chat):
    reply = chat.ask("One", stopping_criteria=[Stops(2, lambda: True)], **ARGUMENTS)
    assert len(reply.ids) == 2 and not reply.was_stopped
    assert len(chat.ask("Two", **{**ARGUMENTS, "max_new_tokens": 1}).ids) == 1
    ask(chat, "Three")


def test_stop_strings_find_the_tokenizer(chat):
    whole = chat.ask("One", **{**ARGUMENTS, "max_new_tokens": 20})
    letters = [each for each in whole.text if each.isalnum()]
    cut = chat.regenerate(**{**ARGUMENTS, "max_new_tokens": 20, "stop_strings": [letters[0]]})
    assert len(cut.ids) < len(whole.ids) and letters[0] in cut.text


def test_the_end_of_a_turn_may_be_its_first_token(chat):
    """An empty answer is an answer."""
    end = chat.processor.tokenizer.eos_token_id
    reply = chat.ask("One", prefix_allowed_tokens_fn=lambda *_: [end], **ARGUMENTS)
    assert (reply.ids, reply.text) == ([end], "")
    ask(chat, "Two")


@pytest.mark.parametrize("arguments", [dict(repetition_penalty=0.0), dict(stopping_criteria=True)], ids=str)
def test_a_streamers_reader_is_released(chat, arguments):
    """modelscope/ms-swift #10133: `generate` raises in a thread, and the reader of its streamer waits for ever."""
    if "stopping_criteria" in arguments:
        arguments = {"stopping_criteria": [Stops(3, fails(RuntimeError("broken")))]}
    streamer = TextIteratorStreamer(chat.processor.tokenizer, skip_prompt=True, timeout=60)
    errors = []

    def work():
        try:
            chat.ask("One", streamer=streamer, **arguments, **ARGUMENTS)
        except (ValueError, RuntimeError) as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    list(streamer)
    thread.join()
    assert len(errors) == 1
    streamer = TextIteratorStreamer(chat.processor.tokenizer, skip_prompt=True, skip_special_tokens=True)
    reply = ask(chat, "One", streamer=streamer)
    assert "".join(streamer) == reply.text


def test_stop_while_the_pictures_are_read(chat, monkeypatch):
    """Rendering large ones takes seconds, in which a user may have changed their mind."""
    render = module.render

    def slow(*arguments):
        chat.stop()
        return render(*arguments)

    monkeypatch.setattr(module, "render", slow)
    reply = chat.ask("One", [tiny.picture(0)], **ARGUMENTS)
    assert reply.was_stopped and len(reply.ids) == 1


def test_numbers_of_a_reply(chat):
    reply = ask(chat, "One")
    assert 0 < reply.seconds_to_first_token < reply.seconds and reply.tokens_per_second > 0
    assert reply.read == len(tiny.render(chat.model, chat.processor, chat.messages[:-1]).ids) and reply.reused == 0
