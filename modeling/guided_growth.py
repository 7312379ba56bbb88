"""Growth under guidance: a run that is known beforehand comes first, and nothing is drafted that may not follow.

Wraps what growers are given, so that they need not know of it; knows neither models nor what the guidance is about.
"""

import math
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


def follow_guidance(first: Rows, step: Step, guidance: Guidance, to_target: ToTarget) -> tuple[Rows, Step]:
    """What a grower needs to grow below the forced run: output for the last token of it, and the step for its levels,
    both with -inf for tokens that are not allowed.

    Args:
        first, step, to_target: as in `grow_tree`, from the root.
    """
    run, device = guidance.forced, first.logits.device
    for level, token in enumerate(run):
        visible = torch.ones(1, level + 1, dtype=torch.bool, device=device)
        first = step(torch.tensor([token], device=device), first.hidden, level, visible)
    target_ids = to_target(torch.arange(first.logits.shape[-1], device=device)).cpu()
    width = int(target_ids.max()) + 1
    drafted: list[int] = []  # tokens of the scratch rows after the run

    def masked(rows: Rows, paths: list[tuple[int, ...]]) -> Rows:
        masks = [guidance.allowed(path) for path in paths]
        first_mask = masks[0]
        # within free text all rows have the same mask, the same object even
        shared = all(mask is first_mask for mask in masks)
        allowed = first_mask[None] if shared else torch.stack(masks)
        allowed = torch.nn.functional.pad(allowed, (0, max(width - allowed.shape[1], 0)))[:, target_ids]
        return Rows(rows.hidden, rows.logits.masked_fill(~allowed.to(device), -math.inf))

    def guided_step(tokens: torch.Tensor, features: torch.Tensor, level: int, visible: torch.Tensor) -> Rows:
        drafted.extend(tokens.tolist())
        rows = step(tokens, features, len(run) + level, torch.nn.functional.pad(visible, (len(run), 0), value=True))
        return masked(rows, [(*run, *compress(drafted, seen)) for seen in visible.tolist()])

    return masked(first, [run]), guided_step


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
    )
