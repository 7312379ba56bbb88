"""Six turns with three pictures through one cache equal runs from scratch, and nothing is read twice."""

import pytest
import torch

from hf_mmspec.chat import Chat
from hf_mmspec.chat.prompt import render

from . import tiny

# pictures of each turn, by number
TURNS = [[0], [], [1, 2], [], [], []]


@pytest.fixture(scope="module", params=tiny.TARGETS)
def models(request):
    return tiny.TARGETS[request.param]()


def take_turns(chat, turns=TURNS, **kwargs):
    """Ask a question in each of `turns`; compares every answer with a run from scratch."""
    replies = []
    for number, numbers in enumerate(turns):
        pictures = [tiny.picture(each, (24 + 8 * each, 16)) for each in numbers]
        reply = chat.ask(f"Turn {number}?", pictures, max_new_tokens=12, do_sample=False, **kwargs)
        assert reply.ids == tiny.scratch(chat, chat.messages[:-1], max_new_tokens=12), number
        replies.append(reply)
    return replies


def test_without_a_drafter(models):
    model, processor = models
    chat = Chat(model, processor)
    replies = take_turns(chat)
    assert all(reply.speculation is None and reply.read < 400 for reply in replies)
    assert [reply.reused > 0 for reply in replies] == [False, True, True, True, True, True]


@pytest.mark.parametrize("name", tiny.DRAFTERS)
def test_with_every_drafter(models, name):
    model, processor = models
    chat = Chat(model, processor, tiny.build_drafter(name, model))
    replies = take_turns(chat, **tiny.BUDGET)
    assert all(reply.speculation.rounds > 0 for reply in replies)


@pytest.mark.parametrize("name", tiny.DRAFTERS)
def test_turn_six_reads_what_is_new_and_nothing_else(models, name):
    """Counted by hooks: the target's prefill and the drafter's first forward of each turn, in rows."""
    model, processor = models
    drafter = tiny.build_drafter(name, model)
    chat, asked = Chat(model, processor, drafter), 1
    for number, numbers in enumerate(TURNS):
        with tiny.rows_read(model.get_decoder()) as target, tiny.rows_read(drafter.layers[0]) as drafted:
            reply = chat.ask(
                f"Turn {number}?", [tiny.picture(each) for each in numbers], max_new_tokens=12, do_sample=False,
                **tiny.BUDGET,
            )  # fmt: skip
        assert target[0] == reply.read
        assert drafted[0] <= reply.read  # compressed pictures have fewer rows
        assert max(target[1:]) <= tiny.BUDGET["draft_total_tokens"]
        # What the turn before it asked stays, pictures included; its answer is read again where text does not give its
        # ids again, as with these random bytes.
        assert reply.reused >= asked - 1
        asked = reply.reused + reply.read


def test_a_text_that_survives_is_not_read_again(models):
    """Where the answer's text gives its ids again, its last token and what is new are read, by the drafter as well."""
    model, processor = models
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
