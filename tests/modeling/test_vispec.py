"""ViSpec's rows, cache and drafting against the slow reference; requests that cannot disturb each other."""

import copy

import pytest
import torch

from hf_mmspec.modeling import DraftBudget
from tests.modeling import tiny
from tests.modeling.slow_vispec import slow_layer, slow_rows

SPANS = {
    "none": [],
    "one": [(4, 14)],
    "two, unequal text and sizes": [(3, 9), (16, 27)],
    "adjacent": [(5, 11), (11, 20)],
    "first": [(0, 7)],
    "first, then adjacent": [(0, 4), (4, 8)],
    "last": [(20, 30)],
    "of one token": [(6, 7), (9, 10)],
    "three": [(2, 5), (5, 12), (20, 28)],
}
NEXT = torch.tensor([[17]])
TREE = DraftBudget(depth=3, top_k=3, total_tokens=12)


def reference(drafter, borrowed, prompt, next_token=NEXT):
    embeds = torch.cat([prompt.inputs_embeds[0], borrowed.embed_tokens(next_token[0])])
    inputs, positions = slow_rows(drafter, embeds, prompt.features[0], prompt.visual_spans)
    return slow_layer(drafter, inputs, positions), positions


@pytest.mark.parametrize("num_q, sees", [(1, True), (2, True), (4, True), (1, False), (3, False)])
@pytest.mark.parametrize("spans", SPANS.values(), ids=SPANS)
@torch.no_grad()
def test_prefill_equals_the_slow_reference(spans, num_q, sees):
    drafter = tiny.drafter(num_q=num_q, global_feature=sees)
    borrowed, prompt = tiny.borrowed(), tiny.prompt(spans)
    state = drafter.prefill(prompt, NEXT, borrowed)
    expected, positions = reference(drafter, borrowed, prompt)
    torch.testing.assert_close(state.last_hidden[0], expected[-1], atol=1e-5, rtol=1e-4)
    assert state.cache.stable == len(positions)
    assert state.next_position == 30


@pytest.mark.parametrize("spans", SPANS.values(), ids=SPANS)
@torch.no_grad()
def test_training_path_equals_the_slow_reference(spans):
    """As one sample of a padded batch, on either side."""
    drafter, borrowed, prompt = tiny.drafter(), tiny.borrowed(), tiny.prompt(spans)
    expected, positions = reference(drafter, borrowed, prompt)
    embeds = torch.cat([prompt.inputs_embeds, borrowed.embed_tokens(NEXT)], dim=1)
    features = torch.nn.functional.pad(prompt.features, (0, 0, 0, 1))
    other = tiny.prompt([(2, 6)], length=36, seed=1)
    for left in (5, 0):
        shifted = [(start + left, stop + left) for start, stop in spans]
        pad = (0, 0, left, 5 - left)
        mask = torch.nn.functional.pad(torch.ones(31), (left, 5 - left))
        out = drafter(
            torch.cat([other.features, torch.nn.functional.pad(features, pad)]),
            torch.cat([other.inputs_embeds, torch.nn.functional.pad(embeds, pad)]),
            [other.visual_spans, shifted],
            torch.stack([torch.ones(36), mask]),
        )
        torch.testing.assert_close(out.hidden_states[0][1, positions + left], expected, atol=1e-5, rtol=1e-4)
        visual_rows = sum(min(1, stop - 1 - max(start - 1, 0)) for start, stop in spans)
        assert int(out.rows[1].sum()) == len(positions) - visual_rows


@torch.no_grad()
def test_rounds_equal_a_fresh_prefill():
    """Extending by accepted rows gives what a prefill of everything gives."""
    drafter, borrowed, prompt = tiny.drafter(), tiny.borrowed(), tiny.prompt([(4, 14)])
    more = torch.randn(1, 3, tiny.HIDDEN)
    state = drafter.prefill(prompt, NEXT, borrowed)
    drafter.propose(state, TREE)
    drafter.extend(state, more[:, :2], torch.tensor([[3, 4]]))
    drafter.propose(state, TREE)
    drafter.extend(state, more[:, 2:], torch.tensor([[5]]))
    prompt.inputs_embeds = torch.cat([prompt.inputs_embeds, borrowed.embed_tokens(torch.tensor([[17, 3, 4]]))], dim=1)
    prompt.features = torch.cat([prompt.features, more], dim=1)
    fresh = drafter.prefill(prompt, torch.tensor([5]), borrowed)
    torch.testing.assert_close(state.last_hidden, fresh.last_hidden, atol=1e-5, rtol=1e-4)
    assert state.next_position == fresh.next_position == 33
    assert torch.equal(drafter.propose(state, TREE).tokens, drafter.propose(fresh, TREE).tokens)


@torch.no_grad()
def test_unrolled_training_sees_what_drafting_sees():
    """Row j of unrolled step k equals the k-th node of a chain that was drafted after slot j - k."""
    drafter, borrowed, prompt = tiny.drafter(), tiny.borrowed(), tiny.prompt([(4, 14)])
    chain = drafter.propose(drafter.prefill(prompt, NEXT, borrowed), DraftBudget(4, 1, 5, "chain"))
    following = borrowed.embed_tokens(chain.tokens[None])
    embeds = torch.cat([prompt.inputs_embeds, following[:, :4]], dim=1)  # root and its drafts
    features = torch.nn.functional.pad(prompt.features, (0, 0, 0, 4))
    out = drafter(features, embeds, [prompt.visual_spans], steps=3)
    tail = drafter(features, embeds, [prompt.visual_spans], steps=3, unroll_from=torch.tensor([29]))
    for step in range(3):
        torch.testing.assert_close(tail.hidden_states[step][0, 29 + step :], out.hidden_states[step][0, 29 + step :])
        best = drafter.draft_logits(out.hidden_states[step][0, 29 + step], borrowed).argmax()
        assert best == chain.tokens[step + 1]


def test_gradients_reach_every_weight():
    drafter = tiny.drafter()
    prompt = tiny.prompt([(4, 14)])
    drafter(prompt.features, prompt.inputs_embeds, [prompt.visual_spans], steps=2).hidden_states[1].sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in drafter.parameters())


@torch.no_grad()
def test_tree_scores_are_true_log_probabilities():
    """Every node's score is the sum of its path's log-probabilities, each computed by a chain of its own."""
    drafter, borrowed, prompt = tiny.drafter(), tiny.borrowed(), tiny.prompt([(4, 14)])
    state = drafter.prefill(prompt, NEXT, borrowed)
    tree = drafter.propose(state, TREE)
    for path in tree.leaf_paths().tolist():
        nodes = [node for node in path if node >= 0]
        hidden, score, own = state.last_hidden, 0.0, copy.deepcopy(state)
        for node in nodes[1:]:
            token = tree.tokens[node : node + 1]
            score += drafter.draft_logits(hidden, borrowed)[0].log_softmax(-1)[token]
            drafter.extend(own, hidden[None], token[None])  # a draft is an accepted row with the drafter's own feature
            hidden = own.last_hidden
        torch.testing.assert_close(tree.scores[nodes[-1]], score[0], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_sampled_chain_gives_its_distributions():
    drafter, borrowed = tiny.drafter(), tiny.borrowed()
    state = drafter.prefill(tiny.prompt([(4, 14)]), NEXT, borrowed)
    budget = DraftBudget(4, 1, 5, "chain")
    tree = drafter.propose(state, budget, temperature=0.7)
    probs = tree.proposal_probs
    assert probs.shape == (5, tiny.VOCAB)
    torch.testing.assert_close(probs[1:].sum(-1), torch.ones(4))
    first = (drafter.draft_logits(state.last_hidden, borrowed)[0] / 0.7).softmax(-1)
    torch.testing.assert_close(probs[1], first)
    assert (probs[torch.arange(1, 5), tree.tokens[1:]] > 0).all()
    draws = torch.stack([drafter.propose(state, DraftBudget(1, 1, 2, "chain"), 0.7).tokens[1] for _ in range(3000)])
    counts = torch.bincount(draws, minlength=tiny.VOCAB).float() / 3000
    assert (counts - first).abs().sum() < 0.25  # sampling noise of 3,000 draws
    assert drafter.propose(state, budget).proposal_probs is None


@torch.no_grad()
def test_greedy_chain_is_the_most_probable_child_each_time():
    drafter, borrowed = tiny.drafter(), tiny.borrowed()
    state = drafter.prefill(tiny.prompt([(4, 14)]), NEXT, borrowed)
    chain = drafter.propose(state, DraftBudget(3, 8, 30, "chain"))
    assert torch.equal(chain.tokens, drafter.propose(state, DraftBudget(3, 1, 4)).tokens)
    assert len(drafter.propose(state, DraftBudget(0, 3, 9))) == 1
    assert len(drafter.propose(state, DraftBudget(9, 1, 3, "chain"))) == 3


def test_sampling_a_tree_is_refused():
    drafter = tiny.drafter()
    state = drafter.prefill(tiny.prompt(), NEXT, tiny.borrowed())
    with pytest.raises(ValueError, match="chain"):
        drafter.propose(state, TREE, temperature=1.0)


@torch.no_grad()
def test_requests_do_not_disturb_each_other():
    """Interleaved, repeated and interrupted calls draft the same, and the module keeps nothing."""
    drafter, borrowed = tiny.drafter(), tiny.borrowed()
    with_image, text_only = tiny.prompt([(4, 14)]), tiny.prompt(seed=5)
    alone = drafter.propose(drafter.prefill(text_only, NEXT, borrowed), TREE).tokens
    before = set(vars(drafter)), len(list(drafter.buffers()))
    first, second = drafter.prefill(with_image, NEXT, borrowed), drafter.prefill(text_only, NEXT, borrowed)
    drafter.propose(first, TREE)
    drafter.extend(first, torch.randn(1, 2, tiny.HIDDEN), torch.tensor([[1, 2]]))
    assert torch.equal(drafter.propose(second, TREE).tokens, alone)
    with pytest.raises(RuntimeError):
        drafter.extend(second, torch.randn(1, 2, 7), torch.tensor([[1, 2]]))  # a wrong width, in the middle of work
    assert torch.equal(drafter.propose(second, TREE).tokens, alone)
    assert (set(vars(drafter)), len(list(drafter.buffers()))) == before


def test_an_interrupted_draft_leaves_no_rows(monkeypatch):
    drafter, borrowed = tiny.drafter(), tiny.borrowed()
    state = drafter.prefill(tiny.prompt([(4, 14)]), NEXT, borrowed)
    expected = drafter.propose(state, TREE).tokens
    calls = []

    def interrupted(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    original = drafter._run_turned
    monkeypatch.setattr(drafter, "_run_turned", interrupted)
    with pytest.raises(KeyboardInterrupt):
        drafter.propose(state, TREE)
    monkeypatch.undo()
    assert torch.equal(drafter.propose(state, TREE).tokens, expected)


def test_cache_grows_in_place():
    """Many rounds: the same storage while there is room, scratch rows never pile up."""
    drafter, borrowed = tiny.drafter(), tiny.borrowed()
    state = drafter.prefill(tiny.prompt([(4, 14)]), NEXT, borrowed)
    storage = state.cache.rows(0)[0].untyped_storage().data_ptr()
    for _ in range(20):
        drafter.propose(state, TREE)
        drafter.extend(state, torch.randn(1, 1, tiny.HIDDEN), torch.tensor([[3]]))
    assert state.cache.rows(0)[0].untyped_storage().data_ptr() == storage
    for _ in range(300):
        drafter.extend(state, torch.randn(1, 1, tiny.HIDDEN), torch.tensor([[3]]))
    keys, _ = state.cache.rows(0)
    assert keys.shape[2] == 30 - 9 + 320
    assert keys.untyped_storage().nbytes() <= 2 * 4 * 2 * 8 * 600


def test_start_position_shifts_positions_only():
    drafter, borrowed = tiny.drafter(), tiny.borrowed()
    prompt, later = tiny.prompt([(4, 14)]), tiny.prompt([(4, 14)])
    later.start_position = 100
    a, b = drafter.prefill(prompt, NEXT, borrowed), drafter.prefill(later, NEXT, borrowed)
    assert b.next_position == a.next_position + 100
    torch.testing.assert_close(a.cache.rows(0)[1], b.cache.rows(0)[1])
    torch.testing.assert_close(a.last_hidden, b.last_hidden, atol=1e-4, rtol=1e-4)  # rotary embeddings are relative


def test_eager_attention_gives_the_same():
    drafter, borrowed = tiny.drafter(), tiny.borrowed()
    fast = drafter.propose(drafter.prefill(tiny.prompt([(4, 14)]), NEXT, borrowed), TREE)
    drafter.config._attn_implementation = "eager"
    slow = drafter.propose(drafter.prefill(tiny.prompt([(4, 14)]), NEXT, borrowed), TREE)
    assert torch.equal(fast.tokens, slow.tokens)


def test_drafts_in_its_own_dtype():
    drafter, borrowed = tiny.drafter().to(torch.bfloat16), tiny.borrowed()
    state = drafter.prefill(tiny.prompt([(4, 14)]), NEXT, borrowed)
    tree = drafter.propose(state, TREE)
    assert state.last_hidden.dtype == torch.bfloat16
    assert tree.scores.dtype == torch.float32
