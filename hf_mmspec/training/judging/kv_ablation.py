"""What the KV-cache loss buys: drafters trained with several weights and seeds, judged in both ways of drafting.

`python -m hf_mmspec.training.judging.kv_ablation --answers DIR --weights 0,0.1,1 --seeds 0,1,2 --json F`. Trainings go
on from their checkpoints, and finished cells of F are kept. Training and measuring are elsewhere.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from hf_mmspec import AutoDrafter
from hf_mmspec.data import Conversation, Source, open_source
from hf_mmspec.evaluation.loading import load_target
from hf_mmspec.evaluation.machine import machine_facts
from hf_mmspec.hub.names import EMBEDDED_TARGET
from hf_mmspec.modeling import FAMILIES
from hf_mmspec.modeling.configuration_autoregressive import AutoregressiveConfig

from ..answers.store import AnswerSet, write_json
from ..recipes.recipe import Recipe, RecipeError, family_recipe, read_recipe
from ..run import Run
from ..train import train
from .ablation_report import Cell, finished_cells, is_finished, table
from .acceptance import BUDGET
from .modes import measure_modes


@dataclass(frozen=True)
class Ablation:
    """What all cells share.

    Args:
        family, changes: the recipe, see `read_recipe`; weight and seed come on top.
        model, processor, name: the target, and what users call it.
        answers, validation: to train on and to choose checkpoints by (some of the answers where there are none).
        prompts: to measure on.
        work: folder for drafters and checkpoints.
        max_new_tokens: of all answers.
        repetitions: of each measured answer.
        held_out: prompts to choose checkpoints by.
    """

    family: str
    changes: list[str]
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

    @property
    def settings(self) -> dict[str, Any]:
        """What cells of one file have in common."""
        return {
            "recipe": recipe_for(self.family, self.changes, 0.0, 0).as_dict(),
            "target": self.name,
            "dtype": str(self.model.dtype),
            "answers": [each.fingerprint for each in self.answers],
            "validation": [each.fingerprint for each in self.validation],
            "prompts": [each.key for each in self.prompts],
            "held_out": self.held_out,
            "max_new_tokens": self.max_new_tokens,
            "repetitions": self.repetitions,
            "budget": BUDGET,
        }

    def cells(self, weight: float, seed: int) -> list[Cell]:
        """Train a drafter, or take it where it is done, and judge it."""
        folder = self.work / f"weight-{weight:g}-seed-{seed}"
        if not (folder / "training.json").exists():
            run = Run(
                recipe_for(self.family, self.changes, weight, seed),
                folder,
                folder.with_name(f"{folder.name}-work"),
                self.name,
                held_out=self.held_out,
                max_new_tokens=self.max_new_tokens,
                trainer={"bf16": self.model.dtype == torch.bfloat16, "use_cpu": not torch.cuda.is_available()},
            )
            train(run, self.model, self.processor, self.answers, self.validation)
        losses = json.loads((folder / "training.json").read_text())["losses"]
        drafter = AutoDrafter.from_pretrained(folder).to(device=self.model.device, dtype=self.model.dtype).eval()
        found = measure_modes(
            self.model, self.processor, drafter, self.prompts, self.max_new_tokens, self.repetitions, **BUDGET
        )
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
    cells = finished_cells(file, ablation.settings)
    for seed in seeds:
        for weight in weights:
            if not is_finished(cells, weight, seed):
                cells = [cell for cell in cells if (cell["weight"], cell["seed"]) != (weight, seed)]
                cells += ablation.cells(weight, seed)
                machine = machine_facts(ablation.model.dtype, ablation.model.device)
                write_json(file, {"machine": machine, "settings": ablation.settings, "cells": cells})
    return cells


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
        sets, validation = ([AnswerSet.load(each) for each in folders] for folders in (answers, val or []))
        json_file.parent.mkdir(parents=True, exist_ok=True)
        target, processor = load_target(model, dtype)
        prompts = list(open_source(Source(data, split=split, skip=skip, limit=limit)).usable())
        place = work or json_file.with_name(f"{json_file.stem}-work")
        ablation = Ablation(
            *(family, changes, target, processor, model or EMBEDDED_TARGET, sets, validation, prompts, place),
            *(max_new_tokens, repetitions, held_out),
        )
        typer.echo("\n".join(table(run_ablation(ablation, chosen, numbers, json_file))))
    except (ValueError, OSError) as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(2) from error


if __name__ == "__main__":
    typer.run(main)
