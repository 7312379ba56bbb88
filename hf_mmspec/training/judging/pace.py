"""The same seconds of training for every recipe: steps are timed, then planned, so that schedules come to their end.

Knows recipes and steps; not what is compared. Only steps count: neither measuring L nor the closed-form start.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from ..learning.order import Entry, epochs_of, steps_of
from ..recipes.recipe import Recipe
from .study import Study

TIMED_STEPS = 6  # of each stage; the batches of a stage differ in length

Pace = Mapping[str, float]  # seconds of a step, by stage


def measured_pace(study: Study, recipe: Recipe, entries: Sequence[Entry]) -> dict[str, float]:
    """Train a few steps of each stage, and throw them away.

    Args:
        entries: of the records to train on.
    """
    short = replace(recipe, closed_form_start=False, evaluations=1)
    short = with_steps(short, entries, {stage.name: TIMED_STEPS for stage in recipe.stages})
    study.work.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=study.work) as scratch:
        hasty = replace(study, work=Path(scratch), held_out=1, max_new_tokens=2)
        effort = hasty.trained(short, "pace")[1]["effort"]
    return {name: each["seconds"] / each["steps"] for name, each in effort.items()}


def for_seconds(recipe: Recipe, entries: Sequence[Entry], pace: Pace, seconds: float) -> Recipe:
    """The recipe with epochs that take so long, stages in the proportion that it gives them; a step each at least."""
    whole = sum(steps_of(stage, entries) * pace[stage.name] for stage in recipe.stages)
    return _scaled(recipe, entries, seconds / whole)


def for_epochs(recipe: Recipe, entries: Sequence[Entry], epochs: float) -> Recipe:
    """The recipe with so many passes over the records in all stages together, in the proportion that it gives them."""
    return _scaled(recipe, entries, epochs / sum(stage.epochs for stage in recipe.stages))


def _scaled(recipe: Recipe, entries: Sequence[Entry], factor: float) -> Recipe:
    steps = {stage.name: max(round(factor * steps_of(stage, entries)), 1) for stage in recipe.stages}
    return with_steps(recipe, entries, steps)


def with_steps(recipe: Recipe, entries: Sequence[Entry], steps: Mapping[str, int]) -> Recipe:
    """The recipe with so many steps of each stage."""
    stages = [replace(stage, epochs=epochs_of(stage, entries, steps[stage.name])) for stage in recipe.stages]
    return replace(recipe, stages=stages)
