"""`visual="skipped"`: the drafter reads a conversation with images as it reads the same conversation without them."""

import pytest
import torch

from hf_mmspec.modeling import DraftBudget, TargetPrompt
from hf_mmspec.modeling.row_plan import SlottedBatch
from hf_mmspec.modeling.visual_rows import SkippedRows
from tests.modeling import tiny
from tests.modeling.families import build, prompt_for

NEXT = torch.tensor([[17]])
TREE = DraftBudget(depth=3, top_k=3, total_tokens=12)
SKIPPING = ("eagle without images", "eagle3 without images", "slots without images")


def plan_of(spans, length=8):
    values = torch.zeros(1, length, 4)
    return SkippedRows().plan(SlottedBatch(values, values, [torch.arange(length)], [spans]))


def test_rows_are_those_of_the_text_with_the_feature_of_the_text_before():
    plan = plan_of([(2, 4), (4, 6)])
    assert plan.slots.tolist() == [[0, 5, 6, 7]] and plan.feature_slots.tolist() == [[0, 1, 6, 7]]
    assert not plan.visual.any() and plan.valid.all()


def test_a_leading_image_leaves_no_row_and_a_last_one_the_row_of_the_answer():
    leading, last = plan_of([(0, 3)]), plan_of([(5, 8)])
    assert leading.slots.tolist() == leading.feature_slots.tolist() == [[3, 4, 5, 6, 7]]
    assert last.slots.tolist() == [[0, 1, 2, 3, 7]] and last.feature_slots.tolist() == [[0, 1, 2, 3, 4]]


def test_a_prompt_of_nothing_but_an_image_still_has_a_row():
    plan = plan_of([(0, 8)])
    assert plan.slots.tolist() == plan.feature_slots.tolist() == [[7]]


@pytest.mark.parametrize("name", SKIPPING)
@pytest.mark.parametrize("spans", [[(4, 14)], [(0, 7)], [(20, 30)], [(3, 9), (9, 15)]])
@torch.no_grad()
def test_drafts_are_those_for_the_prompt_without_the_images(name, spans):
    drafter, borrowed = build(name), tiny.borrowed()
    prompt = prompt_for(drafter, spans)
    text = ~prompt.visual_mask[0]
    cut = TargetPrompt(None, prompt.inputs_embeds[:, text], prompt.features[:, text])
    ours, theirs = (drafter.prefill(each, NEXT, borrowed) for each in (prompt, cut))
    assert ours.next_position == theirs.next_position == int(text.sum())
    assert ours.cache.stable == int(text.sum())
    torch.testing.assert_close(drafter.propose(ours, TREE).scores, drafter.propose(theirs, TREE).scores)
    assert torch.equal(drafter.propose(ours, TREE).tokens, drafter.propose(theirs, TREE).tokens)


@pytest.mark.parametrize("name", SKIPPING)
@torch.no_grad()
def test_training_rows_around_an_image_are_those_of_the_text_alone(name):
    """The unrolled steps too: the token after an image follows the text before it."""
    drafter = build(name)
    prompt = prompt_for(drafter, [(4, 14)])
    text = ~prompt.visual_mask[0]
    steps = 1 if name.startswith("slots") else 3  # later slots stand for tokens by position, image included
    whole = drafter(prompt.features, prompt.inputs_embeds, [prompt.visual_spans], steps=steps)
    alone = drafter(prompt.features[:, text], prompt.inputs_embeds[:, text], steps=steps)
    after = text.roll(-1)[:-1].nonzero()[:, 0]  # slots of which the next token is text
    assert torch.equal(whole.rows[0].nonzero()[:, 0], after)
    for ours, theirs in zip(whole.hidden_states, alone.hidden_states, strict=True):
        torch.testing.assert_close(ours[0, after], theirs[0, : len(after)], atol=1e-5, rtol=1e-4)
