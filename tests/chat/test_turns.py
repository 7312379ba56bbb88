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
        assert reply.ids == tiny.scratch(chat, chat.messages[:-1], max_new_tokens=12), number
        assert target[0] == reply.read and reply.reused >= asked - 1
        assert max(target[1:]) <= tiny.BUDGET["draft_total_tokens"]
        assert drafter[0] <= reply.read  # compressed pictures have fewer rows
        assert (reply.speculation is None) is (chat.drafter is None)
        asked = reply.reused + reply.read


def test_without_a_drafter(models):
    take_turns(Chat(*models))


@pytest.mark.parametrize("name", tiny.DRAFTERS)
def test_with_every_drafter(models, name):
    model, processor = models
    take_turns(Chat(model, processor, tiny.build_drafter(name, model)), **tiny.BUDGET)


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
