"""What a training is asked for.

Plain data; checked in `checks.py`, done in `train.py`.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .features.source import Where
from .recipes.recipe import Recipe


@dataclass(frozen=True)
class Run:
    """What a training is asked for.

    Args:
        recipe: how.
        out: the drafter's folder.
        work: for checkpoints and logs; what is in there is not done again.
        target: how users of the drafter name its target.
        max_length: prompt and answer are cut behind so many tokens; None cuts none.
        features: `"stored"`, `"live"`, or `"auto"`: from disk where they are there.
        held_out: prompts to measure on, where `validation` gives none.
        max_new_tokens: of the answers that L is measured on.
        accumulate: parts that a step's records are read in.
        save_minutes: between checkpoints.
        trainer: further or other `TrainingArguments`.
        start: folder or Hub repository of a drafter whose weights are taken over where they fit; None for new ones.
        license: of the drafter, as the Hub names it; None says none.
    """

    recipe: Recipe
    out: Path
    work: Path
    target: str
    max_length: int | None = None
    features: Where = "auto"
    held_out: int = 12
    max_new_tokens: int = 200
    accumulate: int = 1
    save_minutes: float = 10.0
    trainer: dict[str, Any] = field(default_factory=dict)
    start: str | None = None
    license: str | None = None

    def stage_folder(self, number: int) -> Path:
        """For the checkpoints of a stage."""
        return self.work / f"{number}-{self.recipe.stages[number].name}"
