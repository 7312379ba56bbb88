"""Properties of trees and budgets, for any candidates."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_mmspec.modeling import DraftBudget, DraftTree


@st.composite
def candidate_pools(draw):
    """Candidates as a grower makes them: parents before children, no child above its parent, many ties."""
    count = draw(st.integers(1, 40))
    parents = [draw(st.integers(-1, i - 1)) for i in range(count)]
    drops = [draw(st.sampled_from([0.0, 0.0, 0.5, 1.0])) for _ in range(count)]
    depths, scores = [], []
    for parent, drop in zip(parents, drops, strict=True):
        depths.append(1 if parent < 0 else depths[parent] + 1)
        scores.append(-drop + (0.0 if parent < 0 else scores[parent]))
    tokens = [draw(st.integers(0, 5)) for _ in range(count)]
    total = draw(st.integers(1, 45))
    return tokens, parents, depths, scores, total


def build(pool) -> DraftTree:
    tokens, parents, depths, scores, total = pool
    columns = (torch.tensor(column) for column in (tokens, parents, depths, scores))
    return DraftTree.from_candidates(torch.tensor([99]), *columns, total_tokens=total)


@given(candidate_pools())
@settings(deadline=None, max_examples=150)
def test_always_ancestor_closed(pool):
    tree = build(pool)
    parents, depths, scores = tree.parents.tolist(), tree.depths.tolist(), tree.scores.tolist()
    assert len(tree) == min(pool[-1], len(pool[0]) + 1)
    assert (parents[0], depths[0], scores[0], int(tree.tokens[0])) == (-1, 0, 0.0, 99)
    for node in range(1, len(tree)):
        assert 0 <= parents[node] < node
        assert depths[node] == depths[parents[node]] + 1
        assert scores[node] <= scores[parents[node]]


@given(candidate_pools())
@settings(deadline=None, max_examples=100)
def test_keeps_the_best_scores(pool):
    kept = sorted(build(pool).scores.tolist()[1:], reverse=True)
    assert kept == pytest.approx(sorted(pool[3], reverse=True)[: len(kept)])


@given(candidate_pools())
@settings(deadline=None, max_examples=100)
def test_mask_paths_and_children_agree_with_parents(pool):
    tree = build(pool)
    parents, tokens = tree.parents.tolist(), tree.tokens.tolist()

    def lineage(node):
        return [] if node < 0 else [*lineage(parents[node]), node]

    mask = tree.ancestor_mask()
    for node in range(len(tree)):
        assert mask[node].nonzero()[:, 0].tolist() == sorted(lineage(node))
    leaves = [node for node in range(len(tree)) if node not in parents]
    paths = [[node for node in row if node >= 0] for row in tree.leaf_paths().tolist()]
    assert paths == [lineage(leaf) for leaf in leaves]
    for node, children in enumerate(tree.children()):
        assert all(parents[child] == node and tokens[child] == token for token, child in children.items())
        assert set(children) == {tokens[child] for child in range(len(tree)) if parents[child] == node}


def test_a_tie_never_orphans_a_child():
    """A plain top-k may keep candidate 2 and cut its equally good parent 1."""
    tree = build(([1, 2, 3, 4], [-1, -1, 1, 2], [1, 1, 2, 3], [-5.0, -1.0, -1.0, -1.0], 4))
    assert tree.tokens.tolist() == [99, 2, 3, 4]
    assert tree.parents.tolist() == [-1, 0, 1, 2]


def test_chain_and_root():
    chain = DraftTree.chain(torch.tensor([7, 8, 9]))
    assert chain.leaf_paths().tolist() == [[0, 1, 2]]
    assert chain.children() == [{8: 1}, {9: 2}, {}]
    root = DraftTree.root_only(7)
    assert (len(root), root.children(), root.ancestor_mask().tolist()) == (1, [{}], [[True]])
    assert DraftTree.root_only(torch.tensor([[7]])).tokens.tolist() == [7]


@pytest.mark.parametrize(
    "bad", [(-1, 1, 1), (1, 0, 1), (1, 1, 0), (1.5, 1, 1), (True, 1, 1), (1, 1, 1, "bush")], ids=str
)
def test_bad_budgets_are_refused(bad):
    with pytest.raises(ValueError, match="draft budget"):
        DraftBudget(*bad)


def test_budget_levels():
    assert DraftBudget(5, 4, 30).levels == 5
    assert DraftBudget(5, 4, 3).levels == 2
    assert DraftBudget(5, 4, 30).limited_to(2) == DraftBudget(2, 4, 30)
    assert DraftBudget(5, 4, 30).limited_to(-1).levels == 0
