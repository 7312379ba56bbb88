"""Every arm with every seed: trained for the same seconds, and judged on prompts with few and with many visual tokens.

Knows neither the claims nor what the numbers say (`claims_report.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hf_mmspec.modeling.binding import unwrap

from ..checks import entries_of
from ..drafters import layers_of
from ..learning.order import Entry
from ..material import sources
from ..recipes.recipe import Recipe
from .cells import Cell, Cells, has
from .claim_list import SIZES, Arm
from .pace import for_epochs, for_seconds, measured_pace
from .picture_groups import Groups, by_pictures, visual_tokens
from .study import Study
from .taking_turns import measure

ALL_ARMS = ("evaluations=1",)  # the last weights are judged, whichever would have been best


@dataclass(frozen=True)
class Trial:
    """What all cells share.

    Args:
        study: target, answers and prompts.
        changes: to all recipes.
        minutes: of training, for each drafter.
        epochs: instead of minutes, passes over the records in all stages together.
    """

    study: Study
    changes: Sequence[str]
    minutes: float
    epochs: float | None = None
    _entries: dict[Any, list[Entry]] = field(default_factory=dict, init=False, repr=False)

    @property
    def settings(self) -> dict[str, Any]:
        """What cells of one file have in common."""
        equal = {"epochs": self.epochs} if self.epochs is not None else {"minutes": self.minutes}
        return {**self.study.settings, "changes": list(self.changes), **equal}

    def recipe(self, arm: Arm, sizes: dict[str, int], seed: int) -> Recipe:
        """An arm's recipe, not yet of equal length."""
        return arm.recipe(sizes, [*ALL_ARMS, *self.changes, f"seed={seed}"])

    def entries(self, recipe: Recipe) -> list[Entry]:
        """The records that this recipe's drafter learns from.

        Raises:
            NoRecordsError: the answers do not keep the hidden states that it reads.
        """
        study, layers = self.study, layers_of(recipe, self.study.model)
        if layers not in self._entries:
            run = study.run(recipe, "records")
            training, _ = sources(run, study.model, study.processor, study.answers, study.validation)
            self._entries[layers] = entries_of(training)
        return self._entries[layers]

    def equalised(self, recipe: Recipe, kept: Cells, called: str) -> Recipe:
        """The recipe of the same length as all others; how long its steps take is measured once and kept."""
        entries = self.entries(recipe)
        if self.epochs is not None:
            return for_epochs(recipe, entries, self.epochs)
        if called not in kept.notes:
            kept.note(called, measured_pace(self.study, recipe, entries))
        return for_seconds(recipe, entries, kept.notes[called], 60 * self.minutes)

    def cells(self, recipe: Recipe, called: str, groups: Groups) -> list[Cell]:
        """Train a drafter, or take it where it is done, and judge it: a cell for each number of pictures."""
        study = self.study
        drafter, made_by = study.trained(recipe, called)
        effort = made_by["effort"].values()
        facts = {
            "steps": sum(each["steps"] for each in effort),
            "seconds": round(sum(each["seconds"] for each in effort), 3),
            "parameters": sum(each.numel() for each in drafter.parameters()),
        }
        limits = (study.max_new_tokens, study.repetitions)
        return [
            {
                "pictures": pictures,
                "prompts": len(prompts),
                **measure(*(study.model, study.processor, {"": lambda: drafter}, prompts, *limits), **study.budget)[
                    ""
                ],
                **facts,
            }
            for pictures, prompts in groups.items()
        ]


def run_trial(trial: Trial, arms: Sequence[Arm], seeds: Sequence[int], file: Path) -> Cells:
    """All cells, those that are in `file` already included; it is written anew after each drafter. Seeds come one
    after the other, so that every arm has one soon.

    Raises:
        NoRecordsError: the answers do not keep what some arm's drafter reads; before anything is trained.
    """
    study, groups = trial.study, by_pictures(trial.study.prompts)
    tokens = visual_tokens(study.model, study.processor, groups)
    sizes = sizes_of(study.model, tokens)
    for arm in arms:
        trial.entries(trial.recipe(arm, sizes, 0))
    kept = Cells.open(file, study.machine, trial.settings)
    for seed in seeds:
        for arm in arms:
            written = [arm.family, *arm.written(sizes)]
            identity = {"arm": arm.name, "recipe": written, "seed": seed}
            if not is_finished(kept.cells, identity, groups):
                recipe = trial.equalised(trial.recipe(arm, sizes, seed), kept, " ".join(written))
                new = trial.cells(recipe, f"{folder_name(arm.name)}-seed-{seed}", groups)
                new = [{**identity, "visual_tokens": tokens[cell["pictures"]], **cell} for cell in new]
                kept.replace({"arm": arm.name, "seed": seed}, new)
    return kept


def is_finished(cells: Sequence[Cell], identity: dict[str, Any], groups: Groups) -> bool:
    """Whether this arm was judged on prompts of every number of pictures, by the recipe that it has now."""
    return {cell["pictures"] for cell in cells if has(cell, identity)} >= set(groups)


def sizes_of(model: Any, tokens: dict[int, int]) -> dict[str, int]:
    """The target's sizes that arms name (`claim_list.SIZES`).

    Args:
        tokens: visual tokens of a prompt by number of pictures.
    """
    text = unwrap(model).config.get_text_config(decoder=True)
    of_picture = max((count // pictures for pictures, count in tokens.items() if pictures), default=1)
    found = text.intermediate_size // 4, text.hidden_size // 2, max(of_picture // 9, 1)
    return dict(zip(SIZES, found, strict=True))


def folder_name(arm: str) -> str:
    """An arm's name without blanks and commas."""
    return "-".join("".join(letter if letter.isalnum() else " " for letter in arm).split())
