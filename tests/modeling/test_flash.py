"""FLASH: the cache of slot 0, its cost, the two conventions, latents."""

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError

from hf_mmspec.modeling import DraftBudget, FlashConfig
from hf_mmspec.modeling.latent_pool import LatentPool
from tests.modeling import tiny
from tests.modeling.families import build, prompt_for
from tests.modeling.test_every_drafter import NEXT, following


def slow_slots(drafter, rows):
    """All k slots of every row `(R, H)`, flattened to R * k positions, under one mask and without any cache: what the
    authors recompute in each round."""
    k, count = drafter.config.num_slots, len(rows)
    x = (rows[:, None] + drafter.slot_embeddings).flatten(0, 1)[None]
    row, slot = torch.arange(count).repeat_interleave(k), torch.arange(k).repeat(count)
    seen = ((row[None] < row[:, None]) & (slot[None] == 0)) | (
        (row[None] == row[:, None]) & (slot[None] <= slot[:, None])
    )
    mask = torch.zeros(seen.shape).masked_fill_(~seen, torch.finfo(x.dtype).min)[None, None]
    cos_sin = drafter.rotary_emb(x, (row + slot)[None])
    for layer in drafter.layers:
        x = layer(x, attention_mask=mask, position_embeddings=cos_sin)
    return x[0].unflatten(0, (count, k))


def count_queries(drafter):
    """How many positions have gone through the first layer."""
    seen = [0]
    drafter.layers[0].register_forward_pre_hook(lambda module, args: seen.__setitem__(0, seen[0] + args[0].shape[1]))
    return seen


@pytest.mark.parametrize("spans", [[], [(4, 14)], [(3, 9), (12, 25)]])
@torch.no_grad()
def test_cached_slot_0_equals_full_recomputation(spans):
    """Over rounds, with k queries and one cache entry for each new row."""
    drafter, borrowed = build("flash"), tiny.borrowed()
    k, prompt = drafter.config.num_slots, prompt_for(drafter, spans)
    state = drafter.prefill(prompt, NEXT, borrowed)
    features, embeds, _ = following(prompt, NEXT[0], borrowed)
    rows = drafter.batch_rows(features, embeds, [spans], None)
    inputs = drafter.row_inputs(rows.plan, rows.embeddings, rows.features)[0]
    seen = count_queries(drafter)
    for round_number in range(4):
        slots = slow_slots(drafter, inputs)[-1]
        assert state.cache.stable == len(inputs)
        seen[0] = 0
        ours = drafter._slots_of_last_row(state, k)[0] - drafter.residual_gate[:, None] * state.last_feature
        state.cache.drop_scratch()
        torch.testing.assert_close(ours, slots, atol=2e-6, rtol=1e-4)
        new_features, tokens = torch.randn(1, 1 + round_number % 3, tiny.HIDDEN), torch.randint(0, 99, (1, 3))
        tokens = tokens[:, : new_features.shape[1]]
        drafter.extend(state, new_features, tokens)
        assert seen[0] == (k - 1) + tokens.shape[1]  # however long the sequence is
        inputs = torch.cat([inputs, drafter.fuse(borrowed.embed_tokens(tokens), new_features, None)[0]])


@torch.no_grad()
def test_a_longer_image_costs_nothing_after_the_prefill():
    drafter, borrowed = build("flash"), tiny.borrowed()
    for stop in (10, 290):
        state = drafter.prefill(prompt_for(drafter, [(4, stop)], length=stop + 5), NEXT, borrowed)
        assert state.cache.stable == 3 + drafter.config.num_latents + 6  # slots 0 to 2, latents, the rest


@torch.no_grad()
def test_latents_are_softmax_averages_of_each_image():
    pool = LatentPool(tiny.HIDDEN, 3)
    torch.nn.init.normal_(pool.queries)
    features, spans = torch.randn(2, 20, tiny.HIDDEN), [[(2, 9), (9, 15)], [(4, 6)]]
    latents = pool.compress(features, spans)
    pieces = [features[0, 2:9], features[0, 9:15], features[1, 4:6]]
    for ours, piece in zip(latents, pieces, strict=True):
        torch.testing.assert_close(ours, (pool.queries @ piece.T).softmax(-1) @ piece)


@torch.no_grad()
def test_tree_over_slots_conditions_each_branch_on_its_own_tokens():
    """Two nodes of a level with different parents have different children, unless there is no refiner."""
    for name, same in (("flash", False), ("slots on raw rows, no refiner", True)):
        drafter = build(name)
        state = drafter.prefill(prompt_for(drafter), NEXT, tiny.borrowed())
        tree = drafter.propose(state, DraftBudget(2, 4, 21))
        first, second, *_ = (list(children) for children in tree.children()[1:5])
        assert (first == second) == same


@torch.no_grad()
def test_no_more_levels_than_slots():
    drafter = build("flash")
    state = drafter.prefill(prompt_for(drafter), NEXT, tiny.borrowed())
    assert int(drafter.propose(state, DraftBudget(9, 3, 40)).depths.max()) == drafter.config.num_slots
    assert len(drafter.propose(state, DraftBudget(9, 1, 40, "chain"))) == 1 + drafter.config.num_slots
    assert len(drafter.propose(state, DraftBudget(1, 3, 40))) == 4


@torch.no_grad()
def test_reference_compat_leaves_the_gate_out_after_images_only():
    released, ours = build("flash, as released"), build("flash")
    ours.load_state_dict(released.state_dict())
    for spans in ([], [(4, 14)]):
        prompt = prompt_for(ours, spans)
        state = released.prefill(prompt, NEXT, tiny.borrowed())
        with_gate = state.last_hidden + released.residual_gate[0] * state.last_feature
        expected = state.last_hidden if spans else with_gate
        torch.testing.assert_close(released._slots_of_last_row(state, 1)[0], expected)
        if not spans:  # then only the training differs
            tree = DraftBudget(3, 3, 12)
            plain = ours.prefill(prompt, NEXT, tiny.borrowed())
            assert torch.equal(ours.propose(plain, tree).tokens, released.propose(state, tree).tokens)


@torch.no_grad()
def test_own_tokens_condition_the_refiner_as_drafting_does():
    """Free running equals the greedy chain; teacher forcing with the true tokens does not."""
    drafter, borrowed = build("flash"), tiny.borrowed()
    prompt = prompt_for(drafter, [(4, 14)])
    k = drafter.config.num_slots
    chain = drafter.propose(drafter.prefill(prompt, NEXT, borrowed), DraftBudget(k, 1, k + 1, "chain"))
    others = torch.tensor([17, 1, 2, 3, 4])
    features, embeds, _ = following(prompt, others, borrowed)
    free = drafter(features, embeds, [prompt.visual_spans], borrowed=borrowed, own_token_rate=1.0).hidden_states
    drafted = [int(drafter.draft_logits(free[i][0, 29 + i], borrowed).argmax()) for i in range(k)]
    assert drafted == chain.tokens[1:].tolist()
    with pytest.raises(ValueError, match="bind"):
        drafter(features, embeds, [prompt.visual_spans], own_token_rate=0.5)


def test_dropout_only_in_training():
    drafter = build("flash").train()
    prompt = prompt_for(drafter)
    once, again = (drafter(prompt.features, prompt.inputs_embeds).hidden_states[2] for _ in range(2))
    assert not torch.equal(once, again)
    drafter.eval()
    once, again = (drafter(prompt.features, prompt.inputs_embeds).hidden_states[2] for _ in range(2))
    assert torch.equal(once, again)


def test_sizes_that_make_no_sense():
    with pytest.raises(StrictDataclassError, match="num_slots"):
        FlashConfig(num_slots=0)
    with pytest.raises(StrictDataclassError, match="num_latents"):
        FlashConfig(num_latents=0)
    with pytest.raises(StrictDataclassError, match="visual"):
        FlashConfig(visual="pooled")


@torch.no_grad()
def test_slots_of_answers_only():
    """Rows before the answer need slot 0 alone, and then the rest is unchanged."""
    drafter, prompt = build("flash"), prompt_for(build("flash"), [(4, 14)])
    inputs = prompt.features, prompt.inputs_embeds, [prompt.visual_spans]
    everything, answers = (
        drafter(*inputs).hidden_states,
        drafter(*inputs, unroll_from=torch.tensor([20])).hidden_states,
    )
    for slot, (all_rows, some_rows) in enumerate(zip(everything, answers, strict=True)):
        wanted = slice(20 + slot, None) if slot else slice(None)
        torch.testing.assert_close(some_rows[0, wanted], all_rows[0, wanted])
        assert slot == 0 or not some_rows[0, : 20 + slot].any()
