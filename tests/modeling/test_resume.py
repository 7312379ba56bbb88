"""A drafter that goes on over turns has what a fresh prefill of the whole conversation gives."""

import pytest
import torch

from hf_mmspec.modeling import TargetPrompt
from tests.modeling import tiny
from tests.modeling.families import DRAFTERS, build, prompt_for

from .test_every_drafter import TREE

NEXT = torch.tensor([17])
every_drafter = pytest.mark.parametrize("name", DRAFTERS)


def part(prompt, start, stop):
    """Rows `[start, stop)` of a prompt, and the token after them."""
    spans = [(a - start, b - start) for a, b in prompt.visual_spans if start <= a and b <= stop]
    ids, embeds = prompt.input_ids[:, start:stop], prompt.inputs_embeds[:, start:stop]
    token = NEXT if stop == prompt.input_ids.shape[1] else prompt.input_ids[0, stop : stop + 1]
    return TargetPrompt(ids, embeds, prompt.features[:, start:stop], spans, start), token


def conversation(drafter, borrowed, spans):
    """A prompt of 30 rows whose text has the target's embeddings."""
    prompt = prompt_for(drafter, spans)
    is_text = ~prompt.visual_mask
    embeds = borrowed.embed_tokens(prompt.input_ids)
    prompt.inputs_embeds = torch.where(is_text[..., None], embeds, prompt.inputs_embeds)
    return prompt


def assert_same_state(drafter, ours, theirs):
    torch.testing.assert_close(ours.last_hidden, theirs.last_hidden, atol=1e-5, rtol=1e-4)
    assert (ours.slots, ours.next_position) == (theirs.slots, theirs.next_position)
    assert ours.has_images == theirs.has_images
    for layer in range(len(drafter.layers)):
        for mine, its in zip(ours.cache.rows(layer), theirs.cache.rows(layer), strict=True):
            torch.testing.assert_close(mine, its, atol=1e-5, rtol=1e-4)
    drafts = drafter.propose(ours, TREE), drafter.propose(theirs, TREE)
    assert torch.equal(drafts[0].tokens, drafts[1].tokens)
    torch.testing.assert_close(drafts[0].scores, drafts[1].scores, atol=1e-4, rtol=1e-4)


@every_drafter
@pytest.mark.parametrize("cuts", [(13,), (2, 13, 21), (29,)], ids=str)
@torch.no_grad()
def test_turn_by_turn(name, cuts):
    """Images before, behind and between the cuts; the last part is text only where the cut is late."""
    drafter, borrowed = build(name), tiny.borrowed()
    if getattr(drafter.config, "released_rows", False) and cuts[0] == 2:
        pytest.skip("the released rows of text depend on whether an image will follow")
    prompt = conversation(drafter, borrowed, [(3, 9), (14, 20), (22, 28)])
    state = None
    for start, stop in zip((0, *cuts), (*cuts, 30), strict=True):
        if state is None:
            state = drafter.prefill(*part(prompt, start, stop), borrowed)
        else:
            state = drafter.resume(state, *part(prompt, start, stop))
    assert_same_state(drafter, state, drafter.prefill(prompt, NEXT, borrowed))


@every_drafter
@pytest.mark.parametrize("length", [12, 20, 21, 2])
@torch.no_grad()
def test_back_and_on_again(name, length):
    """Cut back before, between and behind images, after drafting and accepted rows: as if nothing had been there."""
    drafter, borrowed = build(name), tiny.borrowed()
    if getattr(drafter.config, "released_rows", False) and length == 2:
        pytest.skip("the released rows of text depend on whether an image will follow")
    prompt = conversation(drafter, borrowed, [(3, 9), (13, 20)])
    state = drafter.prefill(*part(prompt, 0, 25), borrowed)
    drafter.propose(state, TREE)
    drafter.extend(state, prompt.features[:, 25:28], torch.tensor([[5, 6, 7]]))
    drafter.propose(state, TREE)
    state.crop(length)
    state = drafter.resume(state, *part(prompt, length, 30))
    assert_same_state(drafter, state, drafter.prefill(prompt, NEXT, borrowed))


@torch.no_grad()
def test_a_drafter_that_slept_reads_on_where_it_wakes_up():
    """Rows that it never read are a gap: positions go on from the prompt's own."""
    drafter, borrowed = build("vispec"), tiny.borrowed()
    prompt = conversation(drafter, borrowed, [(3, 9)])
    state = drafter.prefill(*part(prompt, 0, 12), borrowed)
    state = drafter.resume(state, *part(prompt, 20, 30))
    assert state.slots[-11:] == [11, *range(20, 30)] and state.next_position == 30
