"""Sampling in a batch of four: every row draws from its own distribution, in trees and in chains."""

from contextlib import nullcontext
from itertools import product
from types import SimpleNamespace

import pytest
import torch
from scipy.stats import chisquare
from transformers import LogitsProcessorList, StoppingCriteriaList

from hf_mmspec.generation.answers import Answers
from hf_mmspec.generation.controller import FixedPlan
from hf_mmspec.generation.loop import decode
from hf_mmspec.modeling import DraftBudget, TargetPrompt
from tests.slow_parameters import others_slow

from .test_every_family import VOCAB, MarkovTarget, toy_drafters
from .test_sampling import ToyConfig

ROWS, TEMPERATURE = 4, 0.9
BUDGETS = {"chain": DraftBudget(3, 1, 4, "chain"), "tree": DraftBudget(2, 2, 6)}


class BatchTarget(MarkovTarget):
    """The Markov chain behind the interface that the loop uses."""

    model = SimpleNamespace(_optimize_model_for_decode=nullcontext)

    def prefill(self, ids, generation_config):
        """Row r's prompt is r + 1 tokens long, the rest is padding."""
        logits = self.table[ids]
        own = [ids[row : row + 1, -(row + 1) :] for row in range(len(ids))]
        return Outputs(logits), [TargetPrompt(row, self.embeddings(row), self.features[row]) for row in own]

    def exact_levels(self, row, levels):
        return levels

    def verify(self, trees):
        seen = [self.verified(tree) for tree in trees]
        for each, tree in zip(seen, trees, strict=True):
            each.features = self.features[tree.tokens][None]
        return seen

    def keep(self, paths):
        pass

    def select(self, rows):
        pass


class Outputs(dict):
    def __init__(self, logits):
        super().__init__()
        self.logits = logits


class Config(ToyConfig):
    max_length, temperature, _pad_token_tensor = 7, TEMPERATURE, torch.tensor(0)


class Warp:
    def __call__(self, ids, scores):
        return scores / TEMPERATURE


class Length:
    """Four tokens; row 3, whose prompt begins with 3, ends one token earlier and leaves the batch."""

    eos_token_id = None

    def __call__(self, ids, scores):
        return torch.tensor([ids.shape[1] >= 7 + (0 if ids[0, 0] != 3 else -1)])


FLASH, REDUCED = "flash", "eagle3, reduced vocabulary"


@pytest.mark.parametrize(
    "name, mode, calls",
    others_slow(
        product([FLASH, REDUCED], BUDGETS, [250, 500]),
        [(FLASH, "chain", 250), (REDUCED, "chain", 250), (FLASH, "tree", 250)],
    ),
)
def test_every_row_keeps_its_own_distribution(name, mode, calls):
    """Chi-square of three sampled tokens of each row, through as many rounds as it takes, against the exact one."""
    torch.manual_seed(2)
    target, drafter, counts = BatchTarget(), toy_drafters()[name], torch.zeros(ROWS, VOCAB**3)
    prompts, accepted = torch.tensor([[0, 0, 0], [0, 1, 2], [2, 0, 1], [3, 2, 3]]), 0
    for _ in range(calls):
        answers = Answers(prompts, LogitsProcessorList([Warp()]), StoppingCriteriaList([Length()]), Config, None)
        speculation = decode(target, drafter, target.borrowed(), answers, FixedPlan(BUDGETS[mode]), Config)
        accepted += sum(speculation.accepted)
        for row, answer in enumerate(answers.rows):
            a, b, c = answer.ids[0, 3:6].tolist()
            counts[row, (a * VOCAB + b) * VOCAB + c] += 1
    assert accepted > calls / 4
    step = (target.table / TEMPERATURE).softmax(-1)
    for row in range(ROWS):
        exact = (step[prompts[row, -1]][:, None, None] * step[:, :, None] * step[None]).flatten()
        common = exact * calls >= 5  # rare outcomes go into one bin, as the chi-square test needs expected counts
        observed = torch.cat([counts[row, common], counts[row, ~common].sum()[None]]).double()
        expected = torch.cat([exact[common], exact[~common].sum()[None]]).double()
        assert chisquare(observed, expected / expected.sum() * observed.sum()).pvalue > 1e-3, row
