"""EAGLE's fixed trees, MSD's raw rows, EAGLE-3's taps and head: what is particular to each."""

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError

from hf_mmspec.modeling import (
    DraftBudget,
    DrafterMismatchError,
    Eagle3Config,
    Eagle3Drafter,
    EagleConfig,
    EagleDrafter,
    MSDDrafter,
)
from hf_mmspec.modeling.fixed_tree import EAGLE1_TREE
from hf_mmspec.modeling.row_plan import RowPlan, SlottedBatch
from hf_mmspec.modeling.visual_rows import RawRows
from tests.generation import tiny as targets
from tests.modeling import tiny
from tests.modeling.families import build, prompt_for
from tests.modeling.test_every_drafter import NEXT, SPANS


@pytest.mark.parametrize("depth", [1, 2, 5, 9])
@pytest.mark.parametrize("total", [2, 9, 26, 60])
@torch.no_grad()
def test_fixed_tree_fits_the_budget(depth, total):
    drafter = build("eagle, fixed tree")
    state = drafter.prefill(prompt_for(drafter), NEXT, tiny.borrowed())
    tree = drafter.propose(state, DraftBudget(depth, 10, total))
    wanted = [path for path in EAGLE1_TREE if len(path) <= min(depth, total - 1)][: total - 1]
    assert len(tree) == 1 + len(wanted)
    assert tree.depths.tolist() == [0, *map(len, wanted)]
    assert (tree.parents[1:] < torch.arange(1, len(tree))).all()


@pytest.mark.parametrize("choices", [[], [[]], [[0], [0]], [[0], [1, 0]], [[-1]]])
def test_what_is_no_tree_is_refused(choices):
    with pytest.raises(StrictDataclassError, match="tree_choices"):
        EagleConfig(tree_choices=choices)


@pytest.mark.parametrize("spans", SPANS.values(), ids=SPANS)
def test_raw_rows_are_the_next_embeddings(spans):
    """Slot j is visual where token j + 1 is, and then its input is that token's embedding."""
    prompt = tiny.prompt(spans)
    plan: RowPlan = RawRows().plan(SlottedBatch(prompt.inputs_embeds, prompt.features, [torch.arange(30)], [spans]))
    for slot in range(30):
        is_visual = any(start <= slot + 1 < stop for start, stop in spans)
        assert bool(plan.visual[0, slot]) == is_visual
        if is_visual:
            assert torch.equal(plan.visual_inputs[0, slot], prompt.inputs_embeds[0, slot + 1])
    assert plan.slots[0].tolist() == list(range(30))


@torch.no_grad()
def test_msd_without_images_is_eagle():
    msd = build("msd")
    eagle = EagleDrafter(EagleConfig(**{**msd.config.to_diff_dict(), "model_type": "eagle", "visual": "none"})).eval()
    eagle.load_state_dict(msd.state_dict())
    for spans, same in (([], True), ([(4, 14)], False)):
        states = [d.prefill(tiny.prompt(spans), NEXT, tiny.borrowed()) for d in (msd, eagle)]
        assert torch.equal(states[0].last_hidden, states[1].last_hidden) == same


@pytest.mark.parametrize("family", targets.FAMILIES)
def test_msd_takes_the_layer_style_of_the_target(family):
    drafter = MSDDrafter.from_target(targets.FAMILIES[family]())
    is_qwen = family == "qwen"
    keys = set(drafter.state_dict())
    assert ("layers.0.input_layernorm.weight" in keys) == is_qwen
    assert ("layers.0.self_attn.q_proj.bias" in keys) == is_qwen
    assert "layers.0.self_attn.o_proj.bias" not in keys


def test_authors_taps():
    assert Eagle3Config.authors_taps(32) == [2, 16, 29]
    assert Eagle3Config.authors_taps(7) == [2, 3, 4]
    for layers in range(1, 7):
        with pytest.raises(ValueError, match="feature_layers="):
            Eagle3Config.authors_taps(layers)


@pytest.mark.parametrize("taps", [[], [2, 2, 5], [5, 2], [-1, 2]])
def test_taps_that_repeat_or_leave_their_order_are_refused(taps):
    with pytest.raises(StrictDataclassError, match="feature_layers"):
        Eagle3Config(feature_layers=taps)


def test_a_small_target_needs_a_choice_of_taps():
    target = targets.llava()
    with pytest.raises(ValueError, match=r"feature_layers=\[0, 1\]"):
        Eagle3Drafter.from_target(target)
    drafter = Eagle3Drafter.from_target(target, feature_layers=[0, 1])
    assert drafter.fc.in_features == 2 * targets.HIDDEN
    assert drafter.config.draft_vocab_size == targets.VOCAB
    assert torch.equal(drafter.lm_head.weight, target.lm_head.weight)
    deeper = Eagle3Drafter.from_target(target, feature_layers=[0, 2])
    with pytest.raises(DrafterMismatchError, match="2 layers"):
        deeper.bind(target)


@torch.no_grad()
def test_residual_of_the_normed_feature():
    """speculators' variant: the residual stream starts from the normed feature."""
    plain, normed = build("eagle3"), build("eagle3", norm_before_residual=True)
    layer = normed.layers[0]
    normed.load_state_dict(plain.state_dict())
    embeddings, features = torch.randn(2, 1, 1, tiny.HIDDEN)
    cos_sin = plain.rotary_emb(features, torch.zeros(1, 1, dtype=torch.long))
    pair = torch.cat([embeddings, features], dim=-1)
    # up to the MLP the two differ by exactly the two residuals
    layer.mlp = plain.layers[0].mlp = torch.nn.Identity()
    layer.post_attention_layernorm = plain.layers[0].post_attention_layernorm = torch.nn.Identity()
    difference = layer(pair, attention_mask=None, position_embeddings=cos_sin)
    difference = difference - plain.layers[0](pair, attention_mask=None, position_embeddings=cos_sin)
    torch.testing.assert_close(difference, 2 * (layer.hidden_norm(features) - features))
