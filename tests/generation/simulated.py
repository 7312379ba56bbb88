"""A machine on paper: forwards cost what a script says and drafts are accepted as a script says, in simulated seconds.

Plays the rounds of a plan as the loop would; there is no model and no clock.
"""

import random
from dataclasses import dataclass, field

import torch

from hf_mmspec.generation.budget import Acceptance
from hf_mmspec.generation.controller import Plan, Round
from hf_mmspec.generation.costs import ForwardCosts
from hf_mmspec.generation.learned_acceptance import Trial
from hf_mmspec.generation.learned_costs import RoundCosts
from hf_mmspec.modeling import DraftBudget


@dataclass
class Node:
    """A drafted node: the probability that it is accepted, its rank among its siblings, and what is below it."""

    probability: float
    depth: int = 0
    rank: int = 0
    children: "list[Node]" = field(default_factory=list)


def tree_of(budget: DraftBudget, acceptance: Acceptance) -> tuple[Node, int, int]:
    """EAGLE-2's tree of a drafter that believes what is true: its root, its nodes and the levels that were drafted."""
    root, pool, levels = Node(1.0), [], 0
    beam = [root]
    for depth in range(1, budget.levels + 1):
        if depth > 1 and sum(node.probability for node in beam) < budget.level_threshold:
            break
        rates = acceptance.at(depth, budget.top_k)
        if not rates:
            break
        levels = depth
        for parent in beam:
            parent.children = [Node(parent.probability * rate, depth, i + 1) for i, rate in enumerate(rates)]
        pool += [child for parent in beam for child in parent.children]
        beam = sorted((c for parent in beam for c in parent.children), key=lambda n: -n.probability)[: budget.top_k]
    ranked = sorted(pool, key=lambda node: (-node.probability, node.depth))[: budget.total_tokens - 1]
    scores = torch.tensor([node.probability for node in ranked]).log()
    kept = {id(node) for node in ranked[: budget.worth(scores)]}
    for node in [root, *pool]:
        node.children = [child for child in node.children if id(child) in kept]
    return root, 1 + len(kept), levels


def promise(budget: DraftBudget, costs: ForwardCosts, acceptance: Acceptance) -> float:
    """Expected tokens per second of `budget`, round after round."""
    root, size, levels = tree_of(budget, acceptance)
    waiting, length = [root], 0.0
    while waiting:
        node = waiting.pop()
        length += node.probability
        waiting += node.children
    return length / (costs.verify_seconds(size) + costs.draft_seconds(levels, budget.top_k) + costs.overhead)


@dataclass
class Played:
    """A simulated answer: seconds, tokens and the budget of every round, and where each began."""

    seconds: float = 0.0
    tokens: int = 0
    budgets: list[DraftBudget] = field(default_factory=list)
    places: list[int] = field(default_factory=list)


def play(plan: Plan, tokens: int, costs, acceptance, seed: int = 0, noise: float = 0.0) -> Played:
    """An answer of `tokens` tokens.

    Args:
        costs, acceptance: what is true, or a function of the place in the answer that says what is true there.
        noise: seconds are longer by up to this share, at random.
    """
    dice, played = random.Random(seed), Played()
    while played.tokens < tokens:
        true_costs = costs(played.tokens) if callable(costs) else costs
        rates = acceptance(played.tokens) if callable(acceptance) else acceptance
        budget = plan.next_budget()
        budget = budget.limited_to(tokens - played.tokens - 1)
        root, size, levels = tree_of(budget, rates)
        trials, emitted = walk(root, rates, dice)
        slower = 1 + noise * dice.random()
        draft = true_costs.draft_seconds(levels, budget.top_k) * slower
        spent = RoundCosts(size, true_costs.verify_seconds(size) * slower, draft, 0.0, levels, budget.top_k)
        played.budgets.append(budget)
        played.places.append(played.tokens)
        played.seconds += spent.seconds
        played.tokens += emitted
        plan.learn(Round(spent, trials, emitted, is_tail=played.tokens >= tokens))
    return played


def walk(root: Node, rates: Acceptance, dice: random.Random) -> tuple[list[Trial], int]:
    """Draw the target's rank at every depth; returns the trials and the tokens emitted."""
    trials, emitted, node = [], 1, root
    while node.children:
        rank, left = None, dice.random()
        for i, rate in enumerate(rates.at(node.depth + 1, 10), start=1):
            left -= rate
            if left < 0:
                rank = i
                break
        taken = next((child for child in node.children if child.rank == rank), None)
        trials.append(Trial(node.depth + 1, len(node.children), rank if taken else None))
        if taken is None:
            break
        node, emitted = taken, emitted + 1
    return trials, emitted
