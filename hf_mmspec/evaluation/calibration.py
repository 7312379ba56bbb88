"""How far a drafter's probabilities can be trusted: `python -m hf_mmspec.evaluation.calibration`.

Drafts large trees for the embedded target's validation prompts and compares, node by node, the probability that the
drafter gives to a path with how often the target takes it. `generation/budget.py` stops drafting by that probability.
"""

import argparse
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from transformers import PreTrainedModel

from hf_mmspec.data import Source, model_inputs, open_source
from hf_mmspec.data.embedded import TASKS
from hf_mmspec.modeling import Drafter, DraftTree
from hf_mmspec.whole_file import write_json

from .budgets import parse_budget
from .contenders import Contender, answer
from .loading import default_drafter, load_drafter, load_target
from .machine import machine_facts

# Larger than any tree that pays, so that improbable nodes are seen too.
LARGE = "depth=16,top_k=3,total_tokens=64,mode=tree"
_EDGES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.0001)
_EXPONENTS = [i / 100 for i in range(30, 201)]


@dataclass(frozen=True)
class Node:
    """A drafted node: the probability of its path under the drafter, and whether the target took that path."""

    probability: float
    accepted: bool


def observe(target: PreTrainedModel, drafter: Drafter, inputs: dict, temperature: float, tokens: int) -> list[Node]:
    """All nodes that were drafted for one prompt, except those that the end of the answer cut."""
    trees: list[DraftTree] = []
    propose = drafter.propose

    def recording(*arguments, **options) -> DraftTree:
        trees.append(propose(*arguments, **options))
        return trees[-1]

    drafter.propose = recording  # type: ignore[method-assign]
    try:
        contender = Contender("large tree", {"assistant_model": drafter, **parse_budget(LARGE)})
        run = answer(target, inputs, contender, tokens, temperature)
    finally:
        del drafter.propose
    assert run.speculation is not None
    nodes, emitted = [], 1  # the prefill gives the first token, which is the first tree's root
    for tree, accepted in zip(trees[:-1], run.speculation.accepted, strict=False):
        nodes += _judge(tree, run.tokens[emitted : emitted + accepted])
        emitted += accepted + 1
    return nodes


def _judge(tree: DraftTree, taken: list[int]) -> list[Node]:
    """Every node of `tree`, given the tokens that the target took from it."""
    children, node, path = tree.children(), 0, set()
    for token in taken:
        node = children[node][token]
        path.add(node)
    return [Node(math.exp(score), i in path) for i, score in enumerate(tree.scores.tolist()) if i > 0]


def fit_exponent(nodes: Iterable[Node]) -> float:
    """The e for which `P(accepted) = probability ** e` makes the observations most likely."""
    seen = list(nodes)
    probability = torch.tensor([node.probability for node in seen]).clamp(1e-6, 1 - 1e-6)
    accepted = torch.tensor([float(node.accepted) for node in seen])
    return min(
        _EXPONENTS, key=lambda e: torch.nn.functional.binary_cross_entropy(probability**e, accepted, reduction="sum")
    )


def table(nodes: list[Node]) -> list[dict[str, float]]:
    """Mean probability and acceptance by bin of probability."""
    rows = []
    for low, high in pairwise(_EDGES):
        inside = [node for node in nodes if low <= node.probability < high]
        if inside:
            mean = sum(node.probability for node in inside) / len(inside)
            rows.append(
                {"nodes": len(inside), "drafter": mean, "target": sum(n.accepted for n in inside) / len(inside)}
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=6, help="validation prompts of each task")
    parser.add_argument("--max-new-tokens", type=int, default=160)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    arguments = parser.parse_args()
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)  # before minutes of measuring
    torch.set_num_threads(arguments.threads)
    target, processor = load_target()
    drafter = load_drafter(default_drafter(), target)
    report: dict = {"machine": machine_facts(target.dtype, target.device)}
    for temperature in (0.0, 1.0):
        torch.manual_seed(0)
        nodes = []
        for conversation in open_source(Source("embedded", split="val", limit=len(TASKS) * arguments.samples)):
            inputs = model_inputs(processor, [conversation]).to(target.device, target.dtype)
            nodes += observe(target, drafter, inputs, temperature, arguments.max_new_tokens)
        report[f"temperature {temperature}"] = {"exponent": fit_exponent(nodes), "bins": table(nodes)}
        print(json.dumps(report[f"temperature {temperature}"]), flush=True)
    if arguments.json:
        write_json(arguments.json, report)


if __name__ == "__main__":
    main()
