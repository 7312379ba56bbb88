"""Tells drafters what logits processors know beforehand: tokens that they will refuse, and runs that they force.

Decides what is drafted, never what is accepted: every token still comes from the target's processed distribution.
Knows no grammar; the processor does, for instance one that enforces a JSON schema.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol, runtime_checkable

import torch

from hf_mmspec.modeling import DraftBudget, DraftTree

from .drafting import Drafting


@runtime_checkable
class DraftConstraint(Protocol):
    """A logits processor that can tell what it will do after a prefix: `generate` takes it like any other, and drafts
    are made accordingly. Both answers depend on the ids alone; a wrong one costs time and changes no token.
    """

    def allowed_tokens(self, ids: Sequence[int]) -> torch.Tensor:
        """`bool (n,)` on the CPU, by id: the tokens that it leaves possible after `ids`, the prompt included (ids from
        n on are not); none at all where it would have refused `ids` already."""
        ...

    def forced_tokens(self, ids: Sequence[int]) -> Sequence[int]:
        """The longest run after `ids` in which it leaves one token possible each time; empty where there is a
        choice."""
        ...


class RoundGuidance:
    """What the constraints of a row know about one round: `modeling.guided_growth.Guidance`.

    Args:
        constraints: at least one.
        prefix: all known ids, the prompt included; the last one is the root.
        levels: most tokens below the root.
    """

    def __init__(self, constraints: Sequence[DraftConstraint], prefix: list[int], levels: int):
        self._constraints, self._prefix = constraints, prefix
        self._masks: dict[tuple[int, ...], torch.Tensor] = {}
        runs = (constraint.forced_tokens(prefix) for constraint in constraints)
        self.forced: tuple[int, ...] = tuple(next((run for run in runs if len(run)), ()))[:levels]

    def allowed(self, path: tuple[int, ...]) -> torch.Tensor:
        """See `Guidance.allowed`."""
        mask = self._masks.get(path)
        if mask is None:
            mask, *others = (each.allowed_tokens([*self._prefix, *path]) for each in self._constraints)
            for other in others:
                shared = min(len(mask), len(other))
                mask = mask[:shared] & other[:shared]
            self._masks[path] = mask
        return mask


def constraints_of(logits_processor: Iterable[Any]) -> list[DraftConstraint]:
    """Those of a row's processors that can tell."""
    return [each for each in logits_processor if isinstance(each, DraftConstraint)]


def propose_guided(
    drafting: Drafting | None,
    roots: Sequence[torch.Tensor],
    budgets: Sequence[DraftBudget],
    temperature: float | None,
    guidances: Sequence[RoundGuidance],
) -> list[DraftTree]:
    """Each row's next tree: the forced run, which costs no more than its place in the target's forward, and drafts
    below it.

    A run as long as what a round would draft comes alone: the drafter had to read all of it from its own outputs. It
    will read it from the target's features in the next round. So it is with every run in a batch, whose rows are
    drafted for level by level, side by side.

    Args:
        drafting: the drafter's state; None where nothing but the runs is to be drafted.
        roots: `int64 (1,)` each, the last known tokens.
        budgets: what may be drafted below the runs.
    """
    takes_guidance = drafting is not None and drafting.takes_guidance
    runs_alone = len(guidances) > 1 or not takes_guidance
    alone = [
        drafting is None or budget.depth <= len(each.forced) or (runs_alone and len(each.forced) > 0)
        for each, budget in zip(guidances, budgets, strict=True)
    ]
    trees = [
        DraftTree.chain(torch.cat([root, root.new_tensor(each.forced)]), levels=0)
        for root, each in zip(roots, guidances, strict=True)
    ]
    if drafting is None or all(alone):
        return trees
    budgets = [budget.limited_to(0) if own else budget for budget, own in zip(budgets, alone, strict=True)]
    told = [None if own else each for each, own in zip(guidances, alone, strict=True)] if takes_guidance else None
    drafted = drafting.propose(budgets, temperature, told)
    return [
        run if own else _pruned(tree, each, takes_guidance)
        for run, own, tree, each in zip(trees, alone, drafted, guidances, strict=True)
    ]


def _pruned(tree: DraftTree, guidance: RoundGuidance, was_guided: bool) -> DraftTree:
    # Of a chain that was drawn without guidance nothing may be left out because of what was drawn: the target replaces
    # a refused draft by a draw from the residual distribution.
    return tree if tree.proposal_probs is not None and not was_guided else prune(tree, guidance)


def prune(tree: DraftTree, guidance: RoundGuidance) -> DraftTree:
    """The tree without the nodes that the constraints would refuse, and without what hangs below them.

    A chain that was drawn under guidance keeps its distribution: its drafter drew from allowed tokens wherever it has
    any, so what is cut does not depend on what was drawn.
    """
    tokens, parents = tree.tokens.tolist(), tree.parents.tolist()
    paths: dict[int, tuple[int, ...]] = {0: ()}
    for node in range(1, len(tokens)):
        above = paths.get(parents[node])
        if above is not None and _is_allowed(guidance.allowed(above), tokens[node]):
            paths[node] = (*above, tokens[node])
    if len(paths) == len(tokens):
        return tree
    kept = list(paths)
    place = {node: index for index, node in enumerate(kept)} | {-1: -1}
    rows = torch.tensor(kept, device=tree.tokens.device)
    return DraftTree(
        tokens=tree.tokens[rows],
        parents=torch.tensor([place[parents[node]] for node in kept], device=rows.device),
        depths=tree.depths[rows],
        scores=tree.scores[rows],
        proposal_probs=None if tree.proposal_probs is None else tree.proposal_probs[rows],
        levels=tree.levels,
    )


def _is_allowed(mask: torch.Tensor, token: int) -> bool:
    return token < len(mask) and bool(mask[token])
