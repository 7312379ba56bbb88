"""Whatever happens to the history between turns, the next answer is that of a run from scratch."""

import copy

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import GenerationConfig

from hf_mmspec.chat import Chat
from hf_mmspec.data import PictureError, PlaceholderError

from . import tiny

ARGUMENTS = dict(max_new_tokens=6, do_sample=False, **tiny.BUDGET)
# A template that leaves what was thought out of the history, and an empty thought before every answer but the last.
FORGETFUL = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\\n' -}}
{%- for part in message['content'] -%}
{%- if part['type'] == 'image' -%}{{- '<image>\\n' -}}
{%- else -%}{{- part['text'].split('!')[-1] -}}{%- endif -%}
{%- endfor -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n(thought)' -}}{%- endif -%}
"""


def ask(chat, text, images=(), **kwargs):
    """Ask, and compare with a run from scratch."""
    reply = chat.ask(text, images, **{**ARGUMENTS, **kwargs})
    assert reply.ids == tiny.scratch(chat, chat.messages[:-1], max_new_tokens=6)
    return reply


def text_of(message):
    return message["content"][-1]["text"]


def test_a_template_that_forgets(chat):
    """QwenLM/Qwen3 #1826: turn 1's tokens are no prefix of turn 2's prompt; the picture before them stays cached."""
    processor = copy.copy(chat.processor)
    processor.chat_template = FORGETFUL
    chat = Chat(chat.model, processor, chat.drafter)
    ask(chat, "One", [tiny.picture(0)])
    chat.messages[-1]["content"][0]["text"] = "a long thought! An answer."
    for question in ("Two", "Three"):
        reply = ask(chat, question)
        assert reply.reused > 144 and reply.read < 100


def test_another_picture_of_the_same_size_is_seen(chat):
    """The ids are the same, the pixels are not."""
    ask(chat, "One", [tiny.picture(0)])
    before = ask(chat, "Two")
    chat.messages[0]["content"][0]["image"] = tiny.picture(1)
    del chat.messages[2:]
    after = ask(chat, "Two")
    assert after.reused < 144 < before.reused


def test_a_picture_that_comes_and_goes(qwen):
    chat = Chat(*qwen, tiny.build_drafter("eagle3", qwen[0]))
    ask(chat, "One", [tiny.picture(0)])
    ask(chat, "Two", [tiny.picture(1, (40, 16)), tiny.picture(2, (16, 16))])
    question = chat.undo()
    assert text_of(question) == "Two" and len(question["content"]) == 3
    ask(chat, "Two", [tiny.picture(2, (16, 16))])
    del chat.messages[0]["content"][0]
    ask(chat, "Three")


def test_another_conversation_on_the_same_model(qwen):
    """Qwen2.5-VL keeps the last request's position offset on the model (transformers #43952)."""
    one, two = (Chat(*qwen, tiny.build_drafter("vispec", qwen[0])) for _ in range(2))
    ask(one, "One", [tiny.picture(0, (40, 24))])
    ask(two, "Hello")
    ask(one, "Two")
    ask(two, "A picture", [tiny.picture(1)])
    ask(one, "Three", [tiny.picture(2)])


def test_a_compiled_model_goes_on(llava):
    """Compiled forwards take a cache of a fixed size, which a conversation's is not."""
    model, processor = copy.deepcopy(llava[0]), llava[1]
    model.forward = torch.compile(model.forward, backend="eager")
    chat = Chat(model, processor, tiny.build_drafter("vispec", llava[0]))
    for question in ("One", "Two"):
        reply = chat.ask(question, **ARGUMENTS)
        messages = chat.messages[:-1]
        assert reply.ids == tiny.scratch(Chat(*llava), messages, max_new_tokens=6)


def test_regenerate_replaces_the_answer(chat):
    first = ask(chat, "One", [tiny.picture(0)])
    again = chat.regenerate(**{**ARGUMENTS, "max_new_tokens": 3})
    assert again.ids == first.ids[:3] and again.read == 1 and len(chat.messages) == 2
    assert text_of(chat.messages[1]) == again.text == str(again)
    ask(chat, "Two")


def test_sampling_draws_what_generate_draws(chat):
    """Trees need the random numbers of plain sampling, in a turn that goes on as well."""
    from transformers import set_seed

    ask(chat, "One", [tiny.picture(0)])
    set_seed(3)
    reply = chat.ask("Two", **{**ARGUMENTS, "do_sample": True, "temperature": 0.9})
    set_seed(3)
    inputs = tiny.render(chat.model, chat.processor, chat.messages[:-1]).inputs
    expected = chat.model.generate(**inputs, do_sample=True, temperature=0.9, max_new_tokens=6)
    assert reply.ids == expected[0, inputs["input_ids"].shape[1] :].tolist()


@pytest.mark.parametrize(
    "of_the_model",
    [{"cache_implementation": "static"}, {"use_cache": False}, {"stop_strings": ["zzz"]}, {"max_new_tokens": 6}],
)
def test_what_the_checkpoint_says_besides_a_config_of_the_call(chat, of_the_model, monkeypatch):
    """`generate` takes what a given config leaves open from the model's."""
    bare = chat.model.generation_config
    said = copy.deepcopy(bare)
    said.update(**of_the_model)
    limit = {} if "max_new_tokens" in of_the_model else {"max_new_tokens": 6}
    for question in ("One", "Two"):
        monkeypatch.setattr(chat.model, "generation_config", said)
        reply = chat.ask(question, generation_config=GenerationConfig(do_sample=False, **tiny.BUDGET), **limit)
        monkeypatch.setattr(chat.model, "generation_config", bare)
        assert reply.ids == tiny.scratch(chat, chat.messages[:-1], max_new_tokens=6)


def test_turns_without_drafts_between(chat):
    """The drafter sleeps for a turn, and goes on afterwards."""
    ask(chat, "One", [tiny.picture(0)])
    ask(chat, "Two", draft_depth=0)
    assert ask(chat, "Three").speculation.rounds


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(cache=None), "sets cache itself"),
        (dict(input_ids=None, assistant_model=None), "sets assistant_model, input_ids itself"),
        (dict(num_beams=2), "set num_beams=1"),
        (dict(num_return_sequences=2, do_sample=True), "set num_return_sequences=1"),
        (dict(draft_depth=-1), "depth"),
        (dict(max_new_tokkens=3), "max_new_tokkens"),
    ],
)
def test_bad_arguments_change_nothing(chat, arguments, message):
    ask(chat, "One", [tiny.picture(0)])
    with pytest.raises(ValueError, match=message):
        chat.ask("Two", **arguments)
    assert len(chat.messages) == 2
    assert ask(chat, "Two").reused > 144


def test_bad_questions_change_nothing(chat, tmp_path):
    with pytest.raises(PlaceholderError):
        chat.ask("an <image>?")
    with pytest.raises(PictureError, match="no such file"):
        chat.ask("Two?", [tmp_path / "nowhere.png"])
    for take_back in (chat.undo, chat.regenerate):
        with pytest.raises(ValueError, match="nothing was asked"):
            take_back()
    assert chat.messages == []


def test_a_system_message(llava):
    chat = Chat(*llava, system="Be brief.")
    ask(chat, "One", draft_depth=None)
    assert [message["role"] for message in chat.messages] == ["system", "user", "assistant"]
    chat.undo()
    with pytest.raises(ValueError, match="nothing was asked"):
        chat.undo()


TURNS = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.lists(st.integers(0, 2), max_size=2)),
        st.tuples(st.sampled_from(["undo", "again", "edit", "swap", "cut"]), st.integers(0, 9)),
    ),
    min_size=2,
    max_size=7,
)


@pytest.mark.parametrize("family", ["llava", "qwen"])
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(turns=TURNS, name=st.sampled_from([None, *tiny.DRAFTERS]))
def test_any_history(family, request, turns, name):
    """Questions with pictures, undone, answered again; answers, pictures and turns that somebody edits."""
    model, processor = request.getfixturevalue(family)
    chat = Chat(model, processor, name and tiny.build_drafter(name, model))
    arguments = ARGUMENTS if name else dict(max_new_tokens=6, do_sample=False)
    for step, (what, value) in enumerate(turns):
        if what == "ask" or not chat.messages:
            pictures = [tiny.picture(each, (16 + 8 * each, 16)) for each in value] if what == "ask" else []
            reply = chat.ask(f"{step}?", pictures, **arguments)
        elif what == "again":
            reply = chat.regenerate(**arguments)
        else:
            edit(chat, what, value)
            continue
        assert reply.ids == tiny.scratch(chat, chat.messages[:-1], max_new_tokens=6), (step, turns)
        assert reply.reused + reply.read == len(tiny.render(model, processor, chat.messages[:-1]).ids)


def edit(chat, what, number):
    """Change some message in place."""
    message = chat.messages[number % len(chat.messages)]
    if what == "undo":
        chat.undo()
    elif what == "edit":
        message["content"][-1]["text"] += " and more"
    elif what == "cut":
        del chat.messages[2 * (number % (len(chat.messages) // 2)) :][:2]
    else:
        for part in message["content"]:
            if part["type"] == "image":
                part["image"] = tiny.picture(number, part["image"].size)
