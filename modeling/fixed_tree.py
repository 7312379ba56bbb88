"""Trees whose shape is decided beforehand (EAGLE-1), given a function that drafts one level.

Knows no model, like `tree_growth.py`.
"""

from collections.abc import Sequence

import torch

from .draft_tree import DraftBudget, DraftTree
from .tree_growth import Rows, Step, ToTarget, top_log_probs

Path = tuple[int, ...]

# The 25 drafts of EAGLE-1's release (arXiv 2401.15077): each node is the path of ranks that leads to it.
EAGLE1_TREE = (
    *[[0], [1], [2], [3]],
    *[[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [2, 0], [2, 1], [3, 0]],
    *[[0, 0, 0], [0, 0, 1], [0, 0, 2], [0, 1, 0], [0, 1, 1], [0, 2, 0], [0, 2, 1], [1, 0, 0]],
    *[[0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 2], [0, 0, 0, 0, 0], [0, 0, 0, 0, 1]],
)


def grow_fixed_trees(
    roots: torch.Tensor,
    first: Rows,
    step: Step,
    to_target: ToTarget,
    budgets: Sequence[DraftBudget],
    choices: Sequence[Sequence[int]],
) -> list[DraftTree]:
    """In each row the tree of `choices`, as far as its budget has levels and nodes; nodes in order of depth, then of
    rank.

    Args:
        choices: paths of ranks, see `EAGLE1_TREE`; the parent of every path is a path too.
        roots, first, step, to_target, budgets: as in `grow_trees`.
    """
    own_paths = [_within_budget(choices, budget, first.logits.shape[-1]) for budget in budgets]
    paths = max(own_paths, key=len)  # they are sorted by depth, so that the others are beginnings of it
    inner = {path[:-1] for path in paths}
    row_of: dict[Path, int] = {(): 0}
    batch, device = len(roots), roots.device
    rows, row_scores = first, torch.zeros(batch, 1, device=device)
    visible = torch.empty(batch, 1, 0, dtype=torch.bool, device=device)
    tokens, scores = [roots[:, None]], [row_scores]
    for level in range(1, len(paths[-1]) + 1):
        nodes = [path for path in paths if len(path) == level]
        parent_row = torch.tensor([row_of[path[:-1]] for path in nodes], device=device)
        rank = torch.tensor([path[-1] for path in nodes], device=device)
        log_probs, ids = top_log_probs(rows.logits, int(max(path[-1] for path in nodes)) + 1)
        tokens.append(to_target(ids[:, parent_row, rank]))
        scores.append(row_scores[:, parent_row] + log_probs[:, parent_row, rank])

        grown = [i for i, path in enumerate(nodes) if path in inner]
        if not grown:
            break
        above = parent_row[grown]
        own = torch.eye(len(grown), device=device).bool().expand(batch, -1, -1)
        visible = torch.cat([visible[:, above], own], dim=-1)
        rows = step(tokens[-1][:, grown], rows.select(above.expand(batch, -1)), level - 1, visible)
        row_of = {nodes[i]: row for row, i in enumerate(grown)}
        row_scores = scores[-1][:, grown]
    all_tokens, all_scores = torch.cat(tokens, dim=1), torch.cat(scores, dim=1)
    return [
        _as_tree(own, all_tokens[row, : len(own) + 1], all_scores[row, : len(own) + 1])
        for row, own in enumerate(own_paths)
    ]


def check_choices(choices: Sequence[Sequence[int]]) -> None:
    """Raises ValueError where a path's parent is missing, or a path is repeated, empty or negative."""
    paths = {tuple(path) for path in choices}
    if len(paths) < len(choices) or any(len(path) == 0 or min(path) < 0 for path in paths):
        raise ValueError("tree_choices: paths of ranks must be different, not empty and not negative")
    orphans = sorted(path for path in paths if len(path) > 1 and path[:-1] not in paths)
    if orphans or not paths:
        raise ValueError(f"tree_choices: {list(orphans[0]) if orphans else 'the tree'} has no parent in the tree")


def _within_budget(choices: Sequence[Sequence[int]], budget: DraftBudget, width: int) -> list[Path]:
    """Parents sort before children, so that a cut keeps the tree closed."""
    paths = sorted((tuple(path) for path in choices), key=lambda path: (len(path), path))
    return [path for path in paths if len(path) <= budget.levels and max(path) < width][: budget.total_tokens - 1]


def _as_tree(paths: list[Path], tokens: torch.Tensor, scores: torch.Tensor) -> DraftTree:
    node_of = {path: node for node, path in enumerate([(), *paths])}
    parents = [-1, *(node_of[path[:-1]] for path in paths)]
    depths = [0, *(len(path) for path in paths)]
    return DraftTree(
        tokens,
        torch.tensor(parents, device=tokens.device),
        torch.tensor(depths, device=tokens.device),
        scores,
        levels=max(depths),
    )
