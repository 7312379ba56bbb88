"""Two ways to go on after a round: accepted rows are read again (refresh), or stay as they were drafted (reuse)."""

from functools import cache

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_mmspec.auto import AutoDrafter
from hf_mmspec.modeling import FAMILIES, DraftBudget, DrafterCache
from hf_mmspec.modeling.drafted_rows import DraftedRows
from tests.modeling import tiny
from tests.modeling.families import DRAFTERS, build, prompt_for

NEXT, BONUS = torch.tensor([[17]]), 119
TREE = DraftBudget(depth=4, top_k=3, total_tokens=16)
PRICES = tuple(0.05 * n for n in range(16))
BUDGETS = {"tree": TREE, "chain": DraftBudget(4, 1, 5, "chain"), "cut": DraftBudget(4, 3, 16, "tree", 0.4, PRICES)}
AUTOREGRESSIVE = [name for name, (family, _) in DRAFTERS.items() if family != "flash"]
SPANS = [(3, 9), (12, 20)]
every_drafter = pytest.mark.parametrize("name", AUTOREGRESSIVE)


@cache
def made(name):
    """In float64: some of these random drafters multiply rounding errors from row to row."""
    return build(name, accepted_rows="reuse").double(), tiny.borrowed()


def begun(name):
    """A drafter, its state behind a prompt with two images, and a place for the features that follow."""
    drafter, borrowed = made(name)
    prompt = prompt_for(drafter, SPANS)
    return drafter, drafter.prefill(prompt, NEXT, borrowed), prompt.features.shape[-1]


def path_to(tree, node):
    """Tokens from below the root to a node."""
    tokens = []
    while node > 0:
        tokens.insert(0, int(tree.tokens[node]))
        node = int(tree.parents[node])
    return tokens


@torch.no_grad()
def row_by_row(drafter, state, tokens, features):
    """The reference: one row after the other, each with its feature, into the state's cache. None takes the drafter's
    own output before it. Returns the outputs."""
    before, outputs = state.last_hidden, []
    for token, feature in zip(tokens, features, strict=True):
        given = before if feature is None else drafter.project(feature[None])
        x = drafter.fuse(drafter.embed(torch.tensor([token]), state.borrowed)[None], given[None], state.image_feature)
        position = torch.tensor([[state.next_position]])
        before = drafter._run(x, position, None, state.cache)[0]
        outputs.append(before[0])
        state.next_positions[0] += 1
    state.cache.commit()
    return outputs


def close(found, expected):
    torch.testing.assert_close(found, expected, atol=1e-8, rtol=1e-8)


@given(data=st.data())
@settings(max_examples=50, deadline=None)
@torch.no_grad()
def test_rows_of_any_accepted_path_stay_and_the_rest_is_read(data):
    """Two rounds, whatever is accepted in each: the cache holds the drafted rows of accepted tokens and target rows of
    the others, in order, at their positions; the next tree is the one that follows from these."""
    name = data.draw(st.sampled_from(AUTOREGRESSIVE))
    budget = BUDGETS[data.draw(st.sampled_from(sorted(BUDGETS)))]
    (drafter, state, width), (_, expected, _) = begun(name), begun(name)
    for round_ in range(2):
        tree = drafter.propose(state, budget)
        tokens = path_to(tree, data.draw(st.integers(0, len(tree) - 1)))
        generator = torch.Generator().manual_seed(round_)
        features = torch.randn(1, len(tokens) + 1, width, generator=generator, dtype=torch.float64)
        written = len(state.drafted.along([tokens])[0])
        assert written >= len(tokens) - 1  # the deepest may not have been expanded
        before = state.cache.stable
        drafter.extend(state, features, torch.tensor([[*tokens, BONUS]]))
        given = [None] * written + list(features[0, written:])
        outputs = row_by_row(drafter, expected, [*tokens, BONUS], given)
        expected.last_hidden, expected.last_token = outputs[-1][None], torch.tensor([BONUS])
        assert (state.cache.stable, state.next_position) == (before + len(tokens) + 1, expected.next_position)
        for layer in range(len(drafter.layers)):
            for found, wanted in zip(state.cache.rows(layer), expected.cache.rows(layer), strict=True):
                close(found, wanted)
        close(state.last_hidden, expected.last_hidden)
        close(state.last_feature, drafter.project(features)[:, -1])
        assert state.drafted is None
    ours, theirs = (drafter.propose(each, TREE) for each in (state, expected))
    assert torch.equal(ours.tokens, theirs.tokens)
    torch.testing.assert_close(ours.scores, theirs.scores)


@pytest.mark.parametrize("name", [name for name in AUTOREGRESSIVE if not name.startswith("eagle3")])
@torch.no_grad()
def test_where_the_drafter_is_right_both_ways_are_one(name):
    """With the drafter's own outputs as the target's features, reading again gives the rows that are there."""
    drafter, state, _ = begun(name)
    tree = drafter.propose(state, TREE)
    tokens = path_to(tree, int(tree.depths.argmax()))
    _, reference, _ = begun(name)
    outputs = row_by_row(drafter, reference, tokens, [None] * len(tokens))
    features = torch.stack([begun(name)[1].last_hidden[0], *outputs])[None]
    drafter.extend(state, features, torch.tensor([[*tokens, BONUS]]))
    refreshed = build(name).double()
    again = refreshed.prefill(prompt_for(refreshed, SPANS), NEXT, tiny.borrowed())
    refreshed.propose(again, TREE)
    assert again.drafted is None
    refreshed.extend(again, features, torch.tensor([[*tokens, BONUS]]))
    for found, wanted in zip(state.cache.rows(0), again.cache.rows(0), strict=True):
        close(found, wanted)
    close(state.last_hidden, again.last_hidden)


@every_drafter
@torch.no_grad()
def test_what_was_not_drafted_is_read(name):
    """No proposal before, one that is overwritten, or other tokens than were drafted: all rows are the target's."""
    drafter, state, width = begun(name)
    features = torch.randn(1, 3, width)
    elsewhere = torch.tensor([[BONUS, 118, 117]])
    drafter.propose(state, BUDGETS["chain"])
    drafter.propose(state, TREE)
    assert state.drafted.along([[BONUS]]) == [[]]
    drafter.extend(state, features, elsewhere)
    refreshed = build(name).double()
    again = refreshed.prefill(prompt_for(refreshed, SPANS), NEXT, tiny.borrowed())
    refreshed.extend(again, features, elsewhere)
    assert torch.equal(state.cache.rows(0)[0], again.cache.rows(0)[0])
    assert torch.equal(state.last_hidden, again.last_hidden)
    drafter.extend(state, features[:, :1], torch.tensor([[5]]))  # twice without a proposal between
    assert state.cache.stable == again.cache.stable + 1


@torch.no_grad()
def test_accepted_rows_cost_no_rows_again(monkeypatch):
    drafter, state, width = begun("vispec")
    tree = drafter.propose(state, BUDGETS["chain"])
    tokens = tree.tokens[1:].tolist()
    rows = []
    run = type(drafter)._run
    monkeypatch.setattr(type(drafter), "_run", lambda self, x, *rest: rows.append(x.shape[1]) or run(self, x, *rest))
    drafter.extend(state, torch.randn(1, 5, width), torch.tensor([[*tokens, BONUS]]))
    assert rows == [2]  # the last draft, which was not expanded, and the bonus token


def test_rows_are_found_by_their_whole_path():
    """The same token below two parents is two rows."""
    rows = DraftedRows()
    own, visible = torch.eye(2).bool()[None], torch.tensor([[[0, 1, 1, 0], [1, 0, 0, 1]]]).bool()
    rows.add(torch.tensor([[5, 6]]), own)
    rows.add(torch.tensor([[7, 7]]), visible)
    rows.add(torch.tensor([[8, 9]]), torch.cat([visible, own], dim=2))
    assert rows.along([[5, 7, 9]]) == [[0, 3, 5]]
    assert rows.along([[6, 7, 8, 1]]) == [[1, 2, 4]]
    assert rows.along([[6, 7, 9]]) == [[1, 2]]
    assert rows.along([[7, 7]]) == rows.along([[]]) == DraftedRows().along([[5]]) == [[]]


def test_every_row_of_a_batch_has_its_own_path():
    rows, own = DraftedRows(), torch.eye(2).bool().expand(3, 2, 2)
    rows.add(torch.tensor([[1, 2], [5, 6], [6, 5]]), own)
    crossed = torch.cat([own.flip(1), own], dim=2)
    rows.add(torch.tensor([[3, 4], [7, 8], [7, 8]]), crossed)
    assert rows.along([[2, 3], [5, 7], [5, 8]]) == [[1, 2], [0], [1]]
    rows.select([2, 0])
    assert rows.along([[5, 7], [1]]) == [[1, 2], [0]]


def test_the_cache_keeps_chosen_rows_in_place():
    cache = DrafterCache(2, capacity=4)
    rows = torch.arange(7.0)[None, None, :, None]
    for layer in range(2):
        cache.update(rows[:, :, :2], -rows[:, :, :2], layer)
    cache.commit()
    for layer in range(2):
        cache.update(rows[:, :, 2:] + 10 * layer, -rows[:, :, 2:], layer)
    cache.drop_scratch()
    cache.keep([[0, 3, 4]], first=2)
    assert cache.stable == 5
    assert cache.rows(0)[0].flatten().tolist() == [0, 1, 2, 5, 6]
    assert cache.rows(1)[0].flatten().tolist() == [0, 1, 12, 15, 16]
    assert cache.rows(1)[1].flatten().tolist() == [0, -1, -2, -5, -6]
    cache.keep([[]], first=5)
    assert cache.stable == 5


def test_rows_of_a_batch_keep_different_columns():
    """Scratch begins behind the longest row; what is kept goes behind each row's own columns."""
    cache, columns = DrafterCache(1, capacity=4), torch.arange(7.0)[None, None, :, None].expand(2, 1, 7, 1)
    cache.lengths = [0, 0]
    cache.update(columns[:, :, :3], columns[:, :, :3], 0)
    cache.lengths = [3, 1]
    cache.update(columns[:, :, 3:], columns[:, :, 3:], 0)
    cache.drop_scratch()
    cache.keep([[2], [0, 1, 3]], first=3)
    assert cache.lengths == [4, 4]
    assert cache.rows(0)[0].squeeze().tolist() == [[0, 1, 2, 5], [0, 3, 4, 6]]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_way_is_a_field_of_the_configuration(family, tmp_path):
    config_class, drafter_class = FAMILIES[family]
    small = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
    if family == "flash":
        with pytest.raises((ValueError, StrictDataclassError), match=r"FLASH .* none to reuse"):
            config_class(**small, accepted_rows="reuse")
        return
    assert config_class(**small).accepted_rows == "refresh"
    drafter_class(config_class(**small, accepted_rows="reuse")).save_pretrained(tmp_path)
    assert AutoDrafter.from_pretrained(tmp_path).config.accepted_rows == "reuse"
    with pytest.raises(StrictDataclassError, match="accepted_rows must be one of refresh, reuse, got 'keep'"):
        config_class(**small, accepted_rows="keep")
