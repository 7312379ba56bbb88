"""Six turns with three pictures through one cache equal runs from scratch, and nothing is read twice."""

from functools import cache
from itertools import product

import pytest
import torch

from hf_mmspec.chat import Chat
from hf_mmspec.chat.prompt import render
from tests.slow_parameters import others_slow

from . import tiny

# pictures of each turn, by number
TURNS = [[0], [], [1, 2], [], [], []]


@cache
def models(target):
    return tiny.TARGETS[target]()


_scratch = {}


def scratch(chat, number):
    """The answer to turn `number` by a run from scratch, made once for equal ids: pictures follow from the turn."""
    messages = chat.messages[:-1]
    key = id(chat.model), number, tuple(render(chat.model, chat.processor, messages).ids)
    if key not in _scratch:
        _scratch[key] = tiny.scratch(chat, messages, max_new_tokens=12)
    return _scratch[key]


def take_turns(chat, **kwargs):
    """Ask a question in each of `TURNS`; each answer is compared with a run from scratch, and what the target and the
    drafter read is counted by hooks: rows of the prefill, rows of the drafter's first forward.

    What the turn before asked stays, pictures included; its answer is read again where text does not give its ids
    again, as with these random bytes.
    """
    asked = 1
    for number, numbers in enumerate(TURNS):
        pictures = [tiny.picture(each, (24 + 8 * each, 16)) for each in numbers]
        layer = chat.model.get_decoder() if chat.drafter is None else chat.drafter.layers[0]
        with tiny.rows_read(chat.model.get_decoder()) as target, tiny.rows_read(layer) as drafter:
            reply = chat.ask(f"Turn {number}?", pictures, max_new_tokens=12, do_sample=False, **kwargs)
        assert reply.ids == scratch(chat, number), number
        assert target[0] == reply.read and reply.reused >= asked - 1
        assert max(target[1:]) <= tiny.BUDGET["draft_total_tokens"]
        assert drafter[0] <= reply.read  # compressed pictures have fewer rows
        assert (reply.speculation is None) is (chat.drafter is None)
        asked = reply.reused + reply.read


@pytest.mark.parametrize("target", tiny.TARGETS)
def test_without_a_drafter(target):
    take_turns(Chat(*models(target)))


@pytest.mark.parametrize(
    "target, name",
    others_slow(
        product(tiny.TARGETS, tiny.DRAFTERS),
        [*product(["llava", "qwen"], tiny.DRAFTERS), *product(["sliding"], ["vispec", "flash", "eagle3"])],
    ),
)
def test_with_every_drafter(target, name):
    model, processor = models(target)
    take_turns(Chat(model, processor, tiny.build_drafter(name, model)), **tiny.BUDGET)


@pytest.mark.parametrize("target", tiny.TARGETS)
def test_a_text_that_survives_is_not_read_again(target):
    """Where the answer's text gives its ids again, its last token and what is new are read, by the drafter as well."""
    model, processor = models(target)
    letters = processor.tokenizer("abcdefgh")["input_ids"]
    allowed = dict(prefix_allowed_tokens_fn=lambda *_: letters, max_new_tokens=10, do_sample=False)
    drafter = tiny.build_drafter("vispec", model)
    chat = Chat(model, processor, drafter)
    chat.ask("One?", [tiny.picture(0)], **allowed, **tiny.BUDGET)
    length = len(render(model, processor, [*chat.messages]).ids)
    with tiny.rows_read(drafter.layers[0]) as drafted:
        reply = chat.ask("Two?", **allowed, **tiny.BUDGET)
    prompt = render(model, processor, chat.messages[:-1]).ids
    assert reply.reused + reply.read == len(prompt) and reply.read < len(prompt) - 0.8 * length
    assert drafted[0] == reply.read
    assert torch.equal(torch.tensor(prompt[: reply.reused]), torch.tensor(chat._cache.ids[: reply.reused]))
