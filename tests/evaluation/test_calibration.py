"""Calibration: which nodes count as taken, and the exponent that explains them."""

import random

import pytest
import torch

from hf_mmspec.data import Source, model_inputs, open_source
from hf_mmspec.evaluation import calibration
from hf_mmspec.evaluation.calibration import Node, fit_exponent, observe, table
from hf_mmspec.modeling import DraftTree


def test_a_node_is_taken_when_the_target_went_through_it():
    scores = torch.tensor([0.0, 0.5, 0.25, 0.5, 0.25]).log()
    tree = DraftTree(
        torch.tensor([9, 1, 2, 3, 4]), torch.tensor([-1, 0, 0, 1, 1]), torch.tensor([0, 1, 1, 2, 2]), scores
    )
    nodes = calibration._judge(tree, [1, 4])
    assert [node.accepted for node in nodes] == [True, False, False, True]
    assert [node.probability for node in nodes] == pytest.approx([0.5, 0.25, 0.5, 0.25])


@pytest.mark.parametrize("exponent", [0.6, 1.0, 1.4])
def test_the_exponent_is_found_again(exponent):
    draw = random.Random(0)
    probabilities = [draw.uniform(0.02, 0.98) for _ in range(20_000)]
    nodes = [Node(p, draw.random() < p**exponent) for p in probabilities]
    assert fit_exponent(nodes) == pytest.approx(exponent, abs=0.05)
    for row in table(nodes):
        assert row["target"] == pytest.approx(row["drafter"] ** exponent, abs=0.08)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_every_round_but_the_last_is_observed_and_the_drafter_is_left_as_it_was(
    target, processor, drafter, temperature
):
    inputs = model_inputs(processor, [open_source(Source("embedded:scene", split="val", limit=1))[0]])
    nodes = observe(target, drafter, inputs, temperature, tokens=12)
    assert nodes and all(0 <= node.probability <= 1 for node in nodes)
    assert "propose" not in vars(drafter)
