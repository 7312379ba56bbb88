"""What every drafter must do, whatever its family and its handling of images."""

import pytest
import torch

from hf_mmspec.auto import AutoDrafter
from hf_mmspec.modeling import DraftBudget
from tests.modeling import tiny
from tests.modeling.families import DRAFTERS, build, prompt_for

NEXT = torch.tensor([[17]])
TREE = DraftBudget(depth=3, top_k=3, total_tokens=12)
SPANS = {
    "none": [],
    "one": [(4, 14)],
    "two": [(3, 9), (16, 27)],
    "adjacent": [(5, 11), (11, 20)],
    "first": [(0, 7)],
    "last": [(20, 30)],
    "of one token": [(6, 7), (9, 10)],
}

every_drafter = pytest.mark.parametrize("name", DRAFTERS)
every_span = pytest.mark.parametrize("spans", SPANS.values(), ids=SPANS)


def following(prompt, tokens, borrowed):
    """Features, embeddings and ids of a prompt that goes on with `tokens (n,)`, whose features are not known."""
    embeds = torch.cat([prompt.inputs_embeds, borrowed.embed_tokens(tokens)[None]], dim=1)
    ids = torch.cat([prompt.input_ids, tokens[None]], dim=1)
    return torch.nn.functional.pad(prompt.features, (0, 0, 0, len(tokens))), embeds, ids


def inputs_of(prompt):
    """A prompt as the training path takes it."""
    return prompt.features, prompt.inputs_embeds, [prompt.visual_spans]


@torch.no_grad()
def path_log_probs(drafter, prompt, tokens, borrowed) -> list[float]:
    """Log-probability of each draft on a path (root first), through the training path."""
    features, embeds, ids = following(prompt, tokens, borrowed)
    outputs = drafter(features, embeds, [prompt.visual_spans], steps=len(tokens) - 1, input_ids=ids).hidden_states
    frontier = prompt.features.shape[1] - 1
    found = []
    for step, token in enumerate(tokens[1:].tolist()):
        log_probs = drafter.draft_logits(outputs[step][0, frontier + step], borrowed).log_softmax(-1)
        found.append(float(log_probs[token]))
    return found


# the released FLASH drafts unlike it trains, on purpose
@pytest.mark.parametrize("name", [name for name in DRAFTERS if "as released" not in name])
@every_span
@torch.no_grad()
def test_tree_scores_are_what_training_sees(name, spans):
    """Every path of a tree scores the sum of its log-probabilities under the training path, image or none, anywhere.
    The training path has no cache, so that this checks the caches too."""
    drafter, borrowed = build(name), tiny.borrowed()
    prompt = prompt_for(drafter, spans)
    tree = drafter.propose(drafter.prefill(prompt, NEXT, borrowed), TREE)
    assert len(tree) == 12
    for path in tree.leaf_paths().tolist():
        nodes = [node for node in path if node >= 0]
        found = path_log_probs(drafter, prompt, tree.tokens[nodes], borrowed)
        torch.testing.assert_close(tree.scores[nodes[-1]], torch.tensor(sum(found)), atol=1e-4, rtol=1e-4)


@every_drafter
@torch.no_grad()
def test_rounds_equal_a_fresh_prefill(name):
    """Extending by accepted rows gives what a prefill of everything gives."""
    drafter, borrowed = build(name), tiny.borrowed()
    prompt = prompt_for(drafter, [(3, 9), (12, 20)])
    more = torch.randn(1, 3, prompt.features.shape[-1])
    state = drafter.prefill(prompt, NEXT, borrowed)
    before = drafter.propose(state, TREE)
    assert torch.equal(before.tokens, drafter.propose(state, TREE).tokens)
    drafter.extend(state, more[:, :2], torch.tensor([[3, 4]]))
    drafter.propose(state, TREE)
    drafter.extend(state, more[:, 2:], torch.tensor([[5]]))
    _, prompt.inputs_embeds, prompt.input_ids = following(prompt, torch.tensor([17, 3, 4]), borrowed)
    prompt.features = torch.cat([prompt.features, more], dim=1)
    fresh = drafter.prefill(prompt, torch.tensor([5]), borrowed)
    torch.testing.assert_close(state.last_hidden, fresh.last_hidden, atol=1e-5, rtol=1e-4)
    assert state.next_position == fresh.next_position
    ours, theirs = drafter.propose(state, TREE), drafter.propose(fresh, TREE)
    assert torch.equal(ours.tokens, theirs.tokens)
    torch.testing.assert_close(ours.scores, theirs.scores, atol=1e-4, rtol=1e-4)


@every_drafter
@torch.no_grad()
def test_batches_equal_single_samples(name):
    """Two samples of different lengths and images, padded on the right, give what each gives alone."""
    drafter = build(name)
    prompts = [prompt_for(drafter, [(4, 14)], 30, 0), prompt_for(drafter, [(2, 6), (8, 15)], 22, 1)]
    pad = [(0, 0, 0, 30 - p.features.shape[1]) for p in prompts]
    features = torch.cat([torch.nn.functional.pad(p.features, by) for p, by in zip(prompts, pad, strict=True)])
    embeds = torch.cat([torch.nn.functional.pad(p.inputs_embeds, by) for p, by in zip(prompts, pad, strict=True)])
    ids = torch.cat(
        [torch.nn.functional.pad(p.input_ids, by[2:], value=-100) for p, by in zip(prompts, pad, strict=True)]
    )
    mask = torch.stack([torch.ones(30), (torch.arange(30) < 22).float()])
    together = drafter(features, embeds, [p.visual_spans for p in prompts], mask, steps=3, input_ids=ids)
    for i, prompt in enumerate(prompts):
        alone = drafter(*inputs_of(prompt), steps=3, input_ids=prompt.input_ids)
        length = prompt.features.shape[1]
        assert torch.equal(together.rows[i, :length], alone.rows[0])
        for ours, theirs in zip(together.hidden_states, alone.hidden_states, strict=True):
            rows = alone.rows[0].nonzero()[3:, 0]
            torch.testing.assert_close(ours[i, rows], theirs[0, rows], atol=1e-4, rtol=1e-4)


@every_drafter
def test_gradients_reach_every_weight(name):
    drafter = build(name)
    prompt = prompt_for(drafter, [(4, 14)])
    out = drafter(*inputs_of(prompt), steps=4, input_ids=prompt.input_ids)
    drafter.draft_logits(torch.stack(out.hidden_states), tiny.borrowed()).square().sum().backward()
    without = [n for n, p in drafter.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not without


@every_drafter
@torch.no_grad()
def test_reduced_vocabulary(name):
    """A drafter over some tokens only drafts those, with the probabilities that its own head gives."""
    ids = torch.arange(5, 95, 6)
    drafter, borrowed = build(name, draft_vocab_size=len(ids)), tiny.borrowed()
    drafter.set_draft_vocabulary(ids, borrowed.lm_head)
    prompt = prompt_for(drafter, [(4, 14)])
    state = drafter.prefill(prompt, NEXT, borrowed)
    tree = drafter.propose(state, TREE)
    assert set(tree.tokens[1:].tolist()) <= set(ids.tolist())
    chain = drafter.propose(state, DraftBudget(3, 1, 4, "chain"), temperature=0.8)
    probs = chain.proposal_probs
    assert probs.shape == (4, tiny.VOCAB)
    torch.testing.assert_close(probs[1:, ids].sum(-1), torch.ones(3))
    assert (probs[torch.arange(1, 4), chain.tokens[1:]] > 0).all()


@every_drafter
@torch.no_grad()
def test_saved_and_loaded_bit_equal(name, tmp_path):
    drafter, borrowed = build(name), tiny.borrowed()
    drafter.save_pretrained(tmp_path)
    loaded = AutoDrafter.from_pretrained(tmp_path).eval()
    assert type(loaded) is type(drafter)
    prompt = prompt_for(drafter, [(4, 14)])
    ours, theirs = (d.propose(d.prefill(prompt, NEXT, borrowed), TREE) for d in (drafter, loaded))
    assert torch.equal(ours.tokens, theirs.tokens)
    torch.testing.assert_close(ours.scores, theirs.scores)
    weights = loaded.state_dict()
    assert weights.keys() == drafter.state_dict().keys()
    assert all(torch.equal(tensor, weights[key]) for key, tensor in drafter.state_dict().items())


@every_drafter
@torch.no_grad()
def test_eager_attention_and_half_precision(name):
    drafter, borrowed = build(name), tiny.borrowed()
    prompt = prompt_for(drafter, [(4, 14)])
    fast = drafter.propose(drafter.prefill(prompt, NEXT, borrowed), TREE)
    drafter.config._attn_implementation = "eager"
    assert torch.equal(drafter.propose(drafter.prefill(prompt, NEXT, borrowed), TREE).tokens, fast.tokens)
    half = build(name).to(torch.bfloat16)
    tree = half.propose(half.prefill(prompt, NEXT, borrowed), TREE)
    assert tree.scores.dtype == torch.float32
    assert len(tree) == 12


@every_drafter
@torch.no_grad()
def test_requests_do_not_disturb_each_other(name):
    drafter, borrowed = build(name), tiny.borrowed()
    with_image, text_only = prompt_for(drafter, [(4, 14)]), prompt_for(drafter, seed=5)
    alone = drafter.propose(drafter.prefill(text_only, NEXT, borrowed), TREE).tokens
    before = set(vars(drafter)), len(list(drafter.buffers()))
    first, second = drafter.prefill(with_image, NEXT, borrowed), drafter.prefill(text_only, NEXT, borrowed)
    drafter.propose(first, TREE)
    drafter.extend(first, torch.randn(1, 2, with_image.features.shape[-1]), torch.tensor([[1, 2]]))
    assert torch.equal(drafter.propose(second, TREE).tokens, alone)
    assert (set(vars(drafter)), len(list(drafter.buffers()))) == before
