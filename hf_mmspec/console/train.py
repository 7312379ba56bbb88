"""`mmspec train`: a drafter of any family learns from the target's answers."""

from pathlib import Path
from typing import Annotated, Any, cast

import typer
from rich.console import Console
from rich.markup import escape

from .choices import FEATURES, PRECISIONS, RECIPES, check_choice
from .options import Dtype, Model, Quantize, Threads
from .session import check_form


def train(
    family: Annotated[str, typer.Option(help="vispec, msd, flash, eagle2 or eagle3.")],
    data: Annotated[list[Path], typer.Option(help="Folder of answers (`mmspec distil`). Repeat for several.")],
    out: Annotated[Path, typer.Option(help="Folder for the drafter.")],
    model: Model = None,
    recipe: Annotated[Path | None, typer.Option(help="YAML recipe. Default: the family's own.")] = None,
    change: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change the recipe: stages.0.epochs=2, drafter.draft_vocab_size=2048."),
    ] = None,
    val: Annotated[
        list[Path] | None, typer.Option(help="Folder of answers to measure on. Default: some of the data.")
    ] = None,
    start_from: Annotated[
        str | None, typer.Option(help="Folder or Hub repository of a drafter whose weights are taken where they fit.")
    ] = None,
    license: Annotated[
        str | None, typer.Option(help="Of the drafter, for its card, as the Hub names it: apache-2.0, mit, ...")
    ] = None,
    held_out: Annotated[int, typer.Option(min=1, help="Prompts to measure L on.")] = 12,
    work: Annotated[Path | None, typer.Option(help="Folder for checkpoints and logs. Default: OUT-work.")] = None,
    features: Annotated[
        str, typer.Option(help="auto, stored (hidden states from disk) or live (read on the fly).")
    ] = "auto",
    max_length: Annotated[int | None, typer.Option(min=4, help="Cut answers behind so many tokens.")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=2, help="Of answers that L is measured on.")] = 200,
    accumulate: Annotated[int, typer.Option(min=1, help="Read the records of a step in so many parts.")] = 1,
    save_minutes: Annotated[float, typer.Option(min=0, help="Between checkpoints; 0 is every step.")] = 10.0,
    precision: Annotated[str, typer.Option(help="auto, bf16 or fp32 matrix products.")] = "auto",
    report_to: Annotated[
        str, typer.Option(help="tensorboard, wandb, ... as transformers' Trainer knows them.")
    ] = "none",
    dtype: Dtype = "auto",
    quantize: Quantize = None,
    threads: Threads = None,
) -> None:
    """Trains a drafter; L on held-out prompts chooses the checkpoint, and a killed run goes on where it was."""
    check_choice("--family", family.lower(), RECIPES)
    check_choice("--features", features, FEATURES)
    check_choice("--precision", precision, PRECISIONS)
    check_form(dtype, quantize)
    from .training_session import (
        insist_on_reporter,
        load_for_training,
        quiet,
        read_answers,
        recipe_of,
    )

    chosen = recipe_of(str(recipe or family), change or ())
    if chosen.family != recipe_of(family, ()).family:
        raise ValueError(f"--family {family}, but the recipe is one of family {chosen.family}: give one of them")
    insist_on_reporter(report_to)
    quiet(threads)
    answers, validation = read_answers(data), read_answers(val or [])
    from hf_mmspec.hub.names import EMBEDDED_TARGET
    from hf_mmspec.training.learning.precision import trainer_options
    from hf_mmspec.training.result.folder import insist_on_place
    from hf_mmspec.training.train import Run
    from hf_mmspec.training.train import train as run_training

    insist_on_place(out)
    target, processor = load_for_training(model, dtype, quantize)
    run = Run(
        chosen,
        out,
        work or out.with_name(f"{out.name}-work"),
        model or EMBEDDED_TARGET,
        max_length,
        cast(Any, features),
        held_out,
        max_new_tokens,
        accumulate,
        save_minutes,
        trainer_options(precision, target.dtype, report_to),
        start_from,
        license,
    )
    console = Console()

    def say(line: str) -> None:
        console.print(escape(line), highlight=False, soft_wrap=True)

    folder = run_training(run, target, processor, answers, validation, say)
    say(f"the drafter is in {folder}")
