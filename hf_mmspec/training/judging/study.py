"""What all trainings of a study share: the target, the answers, the prompts to judge on, and where drafters go.

Trains or takes one drafter; which recipes are compared, and by what, is `kv_ablation.py`'s and `claims.py`'s.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hf_mmspec import AutoDrafter
from hf_mmspec.data import Conversation, Source, open_source
from hf_mmspec.evaluation.loading import load_target
from hf_mmspec.evaluation.machine import machine_facts
from hf_mmspec.hub.names import EMBEDDED_TARGET
from hf_mmspec.modeling import Drafter

from ..answers.store import AnswerSet
from ..features.source import Where
from ..learning.precision import trainer_options
from ..recipes.recipe import Recipe
from ..run import Run
from ..train import train
from .acceptance import BUDGET


@dataclass(frozen=True)
class Study:
    """What all cells share.

    Args:
        model, processor, name: the target, and what users call it.
        answers, validation: to train on and to choose checkpoints by (some of the answers where there are none).
        prompts: to measure on.
        work: folder for drafters and checkpoints.
        max_new_tokens: of all answers.
        repetitions: of each measured answer.
        held_out: prompts to choose checkpoints by.
        features: see `Run`.
        budget: how much is drafted in a measured round.
    """

    model: Any
    processor: Any
    name: str
    answers: list[AnswerSet]
    validation: list[AnswerSet]
    prompts: list[Conversation]
    work: Path
    max_new_tokens: int
    repetitions: int
    held_out: int
    features: Where = "auto"
    budget: dict[str, Any] = field(default_factory=lambda: dict(BUDGET))

    @property
    def settings(self) -> dict[str, Any]:
        """What cells of one file have in common."""
        return {
            "target": self.name,
            "dtype": str(self.model.dtype),
            "answers": [each.fingerprint for each in self.answers],
            "validation": [each.fingerprint for each in self.validation],
            "prompts": [each.key for each in self.prompts],
            "held_out": self.held_out,
            "max_new_tokens": self.max_new_tokens,
            "repetitions": self.repetitions,
            "budget": self.budget,
        }

    @property
    def machine(self) -> dict[str, Any]:
        """Where it is measured."""
        return machine_facts(self.model.dtype, self.model.device)

    def run(self, recipe: Recipe, called: str) -> Run:
        """The training of one drafter."""
        return Run(
            recipe,
            self.work / called,
            self.work / f"{called}-work",
            self.name,
            features=self.features,
            held_out=self.held_out,
            max_new_tokens=self.max_new_tokens,
            trainer=trainer_options("auto", self.model.dtype),
        )

    def trained(self, recipe: Recipe, called: str) -> tuple[Drafter, dict[str, Any]]:
        """Train a drafter, or take it where one of the same recipe and answers is done: ready to draft, and its
        `training.json`. Its checkpoints are removed when it is done."""
        run = self.run(recipe, called)
        if not self._has_made(run):
            train(run, self.model, self.processor, self.answers, self.validation)
        shutil.rmtree(run.work, ignore_errors=True)
        drafter = AutoDrafter.from_pretrained(run.out).to(device=self.model.device, dtype=self.model.dtype)
        return drafter.eval(), _made_by(run.out)

    def _has_made(self, run: Run) -> bool:
        made_by = _made_by(run.out)
        learned = [each["fingerprint"] for each in made_by.get("data", [])]
        return made_by.get("recipe") == run.recipe.as_dict() and learned == [each.fingerprint for each in self.answers]


def open_study(
    model: str | None,
    dtype: str,
    answers: Sequence[Path],
    validation: Sequence[Path],
    prompts: Sequence[Source],
    work: Path,
    **settings: Any,
) -> Study:
    """A study from names and folders.

    Args:
        model: the target's folder or repository; the embedded one where it is None.
        dtype: the target's, see `load_target`.
        settings: other arguments of `Study`.

    Raises:
        ValueError: answers, prompts or the target cannot be read; the target is loaded after the answers.
    """
    sets, to_choose_by = ([AnswerSet.load(each) for each in folders] for folders in (answers, validation))
    usable = [prompt for source in prompts for prompt in open_source(source).usable()]
    target, processor = load_target(model, dtype)
    return Study(target, processor, model or EMBEDDED_TARGET, sets, to_choose_by, usable, work, **settings)


def _made_by(folder: Path) -> dict[str, Any]:
    """What a training says about itself; nothing where there is none."""
    file = folder / "training.json"
    return json.loads(file.read_text()) if file.exists() else {}
