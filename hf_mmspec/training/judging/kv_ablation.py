"""What the KV-cache loss buys: drafters trained with several weights and seeds, judged in both ways of drafting.

`python -m hf_mmspec.training.judging.kv_ablation --answers DIR --weights 0,0.1,1 --seeds 0,1,2 --json F`. Trainings go
on from their checkpoints, and finished cells of F are kept. Training and measuring are elsewhere.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from hf_mmspec.data import Source
from hf_mmspec.modeling import FAMILIES
from hf_mmspec.modeling.configuration_autoregressive import AutoregressiveConfig

from ..recipes.recipe import Recipe, RecipeError, family_recipe, read_recipe
from .ablation_report import is_finished, table
from .cells import Cell, Cells
from .modes import measure_modes
from .study import Study, open_study


@dataclass(frozen=True)
class Ablation:
    """What all cells share.

    Args:
        family, changes: the recipe, see `read_recipe`; weight and seed come on top.
        study: target, answers and prompts.
    """

    family: str
    changes: list[str]
    study: Study

    @property
    def settings(self) -> dict[str, Any]:
        """What cells of one file have in common."""
        return {"recipe": recipe_for(self.family, self.changes, 0.0, 0).as_dict(), **self.study.settings}

    def cells(self, weight: float, seed: int) -> list[Cell]:
        """Train a drafter, or take it where it is done, and judge it."""
        study, recipe = self.study, recipe_for(self.family, self.changes, weight, seed)
        drafter, made_by = study.trained(recipe, f"weight-{weight:g}-seed-{seed}")
        found = measure_modes(
            study.model,
            study.processor,
            drafter,
            study.prompts,
            study.max_new_tokens,
            study.repetitions,
            **study.budget,
        )
        losses = made_by["losses"]
        return [{"weight": weight, "seed": seed, "mode": mode, **found[mode], "losses": losses} for mode in found]


def recipe_for(family: str, changes: list[str], weight: float, seed: int) -> Recipe:
    """The family's recipe with a weight in all stages, and a seed.

    Raises:
        RecipeError: it cannot be, or the family has no rows to reuse.
    """
    recipe = read_recipe(family_recipe(family), [*changes, f"stages.*.kv_loss_weight={weight}", f"seed={seed}"])
    if not issubclass(FAMILIES[recipe.family][0], AutoregressiveConfig):
        raise RecipeError(f"{recipe.family} writes no rows for drafted tokens, so there are none to reuse")
    return recipe


def run_ablation(ablation: Ablation, weights: list[float], seeds: list[int], file: Path) -> list[Cell]:
    """All cells, those that are in `file` already included; it is written anew after each drafter."""
    kept = Cells.open(file, ablation.study.machine, ablation.settings)
    for seed in seeds:
        for weight in weights:
            if not is_finished(kept.cells, weight, seed):
                kept.replace({"weight": weight, "seed": seed}, ablation.cells(weight, seed))
    return kept.cells


def main(
    answers: Annotated[list[Path], typer.Option(help="Folder of answers (`mmspec distil`). Repeat for several.")],
    json_file: Annotated[Path, typer.Option("--json", help="Where cells are kept.")],
    weights: Annotated[str, typer.Option(help="Of the KV-cache loss.")] = "0,0.1,1",
    seeds: Annotated[str, typer.Option(help="Of trainings.")] = "0,1,2",
    family: Annotated[str, typer.Option(help="vispec, msd, eagle2 or eagle3.")] = "vispec",
    change: Annotated[list[str] | None, typer.Option("--set", help="Change the recipe, as `mmspec train`.")] = None,
    epochs: Annotated[float, typer.Option(help="Of each stage.")] = 1.0,
    val: Annotated[list[Path] | None, typer.Option(help="Answers to choose checkpoints by.")] = None,
    held_out: Annotated[int, typer.Option(min=1, help="Prompts to choose checkpoints by.")] = 9,
    model: Annotated[str | None, typer.Option(help="Target. Default: the embedded one.")] = None,
    data: Annotated[str, typer.Option(help="Prompts to measure on.")] = "embedded",
    split: Annotated[str | None, typer.Option(help="Of these prompts.")] = "val",
    skip: Annotated[int, typer.Option(min=0, help="Prompts to leave out before, such as those of --val.")] = 96,
    limit: Annotated[int, typer.Option(min=1, help="Prompts.")] = 36,
    max_new_tokens: Annotated[int, typer.Option(min=2, help="Of each answer.")] = 200,
    repetitions: Annotated[int, typer.Option(min=1, help="Of each measured answer; medians of times count.")] = 3,
    work: Annotated[Path | None, typer.Option(help="For drafters and checkpoints. Default: beside --json.")] = None,
    dtype: Annotated[str, typer.Option(help="Of the target.")] = "auto",
    threads: Annotated[int, typer.Option(min=1, help="Of the processor.")] = 2,
) -> None:
    """Trains and judges what is not done yet; prints the table."""
    torch.set_num_threads(threads)
    try:
        chosen, numbers = [float(each) for each in weights.split(",")], [int(each) for each in seeds.split(",")]
        changes = [*(change or ()), f"stages.*.epochs={epochs}"]
        for weight in chosen:
            recipe_for(family, changes, weight, 0)
        prompts = [Source(data, split=split, skip=skip, limit=limit)]
        study = open_study(
            *(model, dtype, answers, val or [], prompts, work or json_file.with_name(f"{json_file.stem}-work")),
            max_new_tokens=max_new_tokens,
            repetitions=repetitions,
            held_out=held_out,
        )
        ablation = Ablation(family, changes, study)
        typer.echo("\n".join(table(run_ablation(ablation, chosen, numbers, json_file))))
    except (ValueError, OSError) as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(2) from error


if __name__ == "__main__":
    typer.run(main)
