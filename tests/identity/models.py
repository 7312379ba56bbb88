"""The tiny targets and drafters of a run, each built once.

Knows no requests. A run has one `Models`; a single case builds what it needs in a new one.
"""

from functools import cached_property
from typing import Any

import torch

from tests.families import rows
from tests.families.test_families import WORKING
from tests.generation.batches import BatchOracle, ScriptedAcceptance
from tests.generation.doubles import RandomDrafter
from tests.generation.spelling import spelling_tokenizer
from tests.generation.test_every_family import build

# Those that need the target's own answers: always right, and right as often as a script says.
KNOW_THE_ANSWER = {"oracle": BatchOracle, "scripted": ScriptedAcceptance}
DOUBLES = ("random", *KNOW_THE_ANSWER)


class Models:
    """Targets by family, drafters by name and target, and the tokenizer that stop strings need."""

    def __init__(self):
        self._targets, self._counts, self._drafters = {}, {}, {}

    def target(self, family):
        if family not in self._targets:
            self._targets[family] = WORKING[family].model()
        return self._targets[family]

    def prompts(self, family, singles) -> list[dict[str, Any]]:
        """For `rows.batch` of the family's targets; `singles` are seed, pictures and length of each."""
        if family not in self._counts:
            self._counts[family] = rows.visual_tokens(WORKING[family], self.target(family))
        return [rows.prompt(WORKING[family], self._counts[family], *single) for single in singles]

    def drafter(self, name, family, singles, answers, own_tokens):
        """A drafter of the family's target.

        Args:
            name: of `test_every_family.DRAFTERS`, or of a double.
            singles, answers: prompts and the new tokens of each.
            own_tokens: it drafts the tokens of the answers only, so that some drafts of random weights are right.
        """
        target = self.target(family)
        if name == "random":
            return RandomDrafter(target)
        if name in KNOW_THE_ANSWER:
            return KNOW_THE_ANSWER[name](target, singles, answers)
        if own_tokens:
            return build(name, target, torch.tensor([token for answer in answers for token in answer]).unique())
        if (name, family) not in self._drafters:
            self._drafters[name, family] = build(name, target)
        return self._drafters[name, family]

    @cached_property
    def tokenizer(self):
        return spelling_tokenizer()
