"""Growth under guidance: a run that is known beforehand comes first, and nothing is drafted that may not follow.

Wraps what growers are given, so that they need not know of it; knows neither models nor what the guidance is about.
"""

import math
from collections.abc import Sequence
from itertools import compress
from typing import Protocol

import torch

from .draft_tree import DraftTree
from .tree_growth import Rows, Step, ToTarget


class Guidance(Protocol):
    """What is known of a round's tokens before anything is drafted.

    Attributes:
        forced: the tokens that certainly come after the root; may be empty.
    """

    forced: tuple[int, ...]

    def allowed(self, path: tuple[int, ...]) -> torch.Tensor:
        """`bool (n,)`, by id: which tokens may come after `path`, the tokens after the root, `forced` included. Other
        ids may not."""


def common_run(guidances: Sequence[Guidance | None] | None) -> tuple[int, ...]:
    """The forced run of a request with one row; empty without guidance.

    Raises:
        ValueError: one of several rows has a run: they would go on at different depths.
    """
    if guidances is None:
        return ()
    runs = [() if guidance is None else guidance.forced for guidance in guidances]
    if len(runs) > 1 and any(runs):
        raise ValueError("in a batch nothing is drafted behind a forced run: give such rows no guidance and no levels")
    return tuple(runs[0])


def follow_guidance(
    first: Rows, step: Step, guidances: Sequence[Guidance | None], to_target: ToTarget
) -> tuple[Rows, Step]:
    """What a grower needs to grow below the forced run: output for the last token of it, and the step for its levels,
    both with -inf for tokens that are not allowed.

    Args:
        guidances: each row's; None for a row whose growth nobody reads. See `common_run` for their forced runs.
        first, step, to_target: as in `grow_trees`, from the roots.
    """
    run, device = common_run(guidances), first.logits.device
    for level, token in enumerate(run):
        visible = torch.ones(1, 1, level + 1, dtype=torch.bool, device=device)
        first = step(torch.tensor([[token]], device=device), first.hidden, level, visible)
    target_ids = to_target(torch.arange(first.logits.shape[-1], device=device)).cpu()
    width = int(target_ids.max()) + 1
    drafted: list[list[int]] = [[] for _ in guidances]  # tokens of the scratch columns after the run

    def masked(rows: Rows, paths: list[list[tuple[int, ...]]]) -> Rows:
        by_row = zip(guidances, paths, strict=True)
        masks = [[None if guide is None else guide.allowed(path) for path in own] for guide, own in by_row]
        some = next((mask for own in masks for mask in own if mask is not None), None)
        if some is None:
            return rows
        # within free text all nodes of a row have the same mask, the same object even
        if all(mask is some for own in masks for mask in own):
            allowed = some[None, None]
        else:
            free = torch.ones_like(some)
            allowed = torch.stack([torch.stack([free if mask is None else mask for mask in own]) for own in masks])
        allowed = torch.nn.functional.pad(allowed, (0, max(width - allowed.shape[-1], 0)))[..., target_ids]
        return Rows(rows.hidden, rows.logits.masked_fill(~allowed.to(device), -math.inf))

    def guided_step(tokens: torch.Tensor, features: torch.Tensor, level: int, visible: torch.Tensor) -> Rows:
        for own, new in zip(drafted, tokens.tolist(), strict=True):
            own.extend(new)
        rows = step(tokens, features, len(run) + level, torch.nn.functional.pad(visible, (len(run), 0), value=True))
        seen = zip(drafted, visible.tolist(), strict=True)
        return masked(rows, [[(*run, *compress(own, node)) for node in nodes] for own, nodes in seen])

    return masked(first, [[run] for _ in guidances]), guided_step


def behind_run(root: torch.Tensor, run: tuple[int, ...], tree: DraftTree) -> DraftTree:
    """`tree`, whose root is the last token of `run`, as it hangs from `root` `(1,)` by the run."""
    if not run:
        return tree
    length, device = len(run), tree.tokens.device
    forced = torch.tensor(run, device=device)
    places = torch.arange(length, device=device)
    probs = tree.proposal_probs
    if probs is not None:  # a forced token was drawn from a distribution that has nothing else
        certain = torch.nn.functional.one_hot(forced, probs.shape[1]).to(probs)
        probs = torch.cat([probs[:1], certain, probs[1:]])
    return DraftTree(
        tokens=torch.cat([root, forced[:-1], tree.tokens]),
        parents=torch.cat([places - 1, tree.parents + length]),
        depths=torch.cat([places, tree.depths + length]),
        scores=torch.cat([tree.scores.new_zeros(length), tree.scores]),
        proposal_probs=probs,
        levels=tree.levels,
    )
