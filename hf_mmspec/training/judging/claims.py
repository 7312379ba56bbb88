"""What the papers claim, tested: the command.

`python -m hf_mmspec.training.judging.claims --json F --answers DIR`. Finished cells of F are kept. Which arms there
are is in `claim_list.py`, how they are trained and judged in `trial.py`, what the numbers say in `claims_report.py`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import torch
import typer

from hf_mmspec.data import Source

from .acceptance import BUDGET
from .cells import Cells
from .claim_list import ARMS, CLAIMS, SIZES, Arm, Claim
from .claims_page import fill_page
from .claims_plot import draw_claims
from .claims_report import report_lines
from .study import open_study
from .trial import ALL_ARMS, Trial, run_trial

PROMPTS = [f"embedded:pictures-{count}" for count in (0, 1, 2, 4)]
JUDGED = {**BUDGET, "draft_depth": 8}  # FLASH with eight slots drafts eight levels


class ClaimError(ValueError):
    """There is no such claim; the message names those that there are."""


def chosen_claims(names: Sequence[str]) -> list[Claim]:
    """Claims by name, all where none is given.

    Raises:
        ClaimError: there is no such claim.
    """
    unknown = [name for name in names if name not in CLAIMS]
    if unknown:
        raise ClaimError(f"no claim {unknown[0]!r}: choose from {', '.join(CLAIMS)}")
    return [CLAIMS[name] for name in names or CLAIMS]


def arms_of(claims: Sequence[Claim]) -> list[Arm]:
    """Every arm once."""
    return [ARMS[name] for name in dict.fromkeys(name for claim in claims for name in claim.arms)]


def main(
    json_file: Annotated[Path, typer.Option("--json", help="Where cells are kept.")],
    answers: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder of answers with hidden states (`mmspec distil --features eagle3`: these serve all families). "
            "Repeat for several. Without, nothing is trained: the file is only reported."
        ),
    ] = None,
    claim: Annotated[list[str] | None, typer.Option(help=f"Of {', '.join(CLAIMS)}. Default: all.")] = None,
    seeds: Annotated[str, typer.Option(help="Of trainings.")] = "0,1,2",
    minutes: Annotated[float, typer.Option(min=0, help="Of training, for each drafter.")] = 3.0,
    epochs: Annotated[float | None, typer.Option(min=0, help="Instead of minutes: passes over the answers.")] = None,
    change: Annotated[list[str] | None, typer.Option("--set", help="Change all recipes, as `mmspec train`.")] = None,
    held_out: Annotated[int, typer.Option(min=1, help="Answers that are not trained on.")] = 3,
    model: Annotated[str | None, typer.Option(help="Target. Default: the embedded one.")] = None,
    data: Annotated[list[str] | None, typer.Option(help="Prompts to judge on.")] = None,
    split: Annotated[str | None, typer.Option(help="Of these prompts.")] = "val",
    skip: Annotated[int, typer.Option(min=0, help="Prompts of each source to leave out before.")] = 0,
    limit: Annotated[int, typer.Option(min=1, help="Prompts of each source.")] = 9,
    max_new_tokens: Annotated[int, typer.Option(min=2, help="Of each answer.")] = 120,
    repetitions: Annotated[int, typer.Option(min=1, help="Of each measured answer; medians of times count.")] = 1,
    work: Annotated[Path | None, typer.Option(help="For drafters and checkpoints. Default: beside --json.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Page whose generated blocks are written anew.")] = None,
    plot: Annotated[Path | None, typer.Option(help="PNG of what decides, over visual tokens.")] = None,
    dtype: Annotated[str, typer.Option(help="Of the target.")] = "auto",
    threads: Annotated[int, typer.Option(min=1, help="Of the processor.")] = 2,
) -> None:
    """Trains and judges what is not done yet; prints the tables."""
    torch.set_num_threads(threads)
    try:
        claims, numbers = chosen_claims(claim or []), [int(each) for each in seeds.split(",")]
        changes = change or []
        for arm in arms_of(claims):
            arm.recipe(dict.fromkeys(SIZES, 8), [*ALL_ARMS, *changes])
        if answers:
            prompts = [Source(name, split=split, skip=skip, limit=limit) for name in data or PROMPTS]
            study = open_study(
                *(model, dtype, answers, [], prompts, work or json_file.with_name(f"{json_file.stem}-work")),
                max_new_tokens=max_new_tokens,
                repetitions=repetitions,
                held_out=held_out,
                features="stored",
                budget=JUDGED,
            )
            kept = run_trial(Trial(study, changes, minutes, epochs), arms_of(claims), numbers, json_file)
        else:
            kept = Cells.read(json_file)
        typer.echo(
            "\n".join(line for each in claims for line in ["", f"## {each.name}", "", *report_lines(each, kept.cells)])
        )
        if markdown is not None:
            fill_page(markdown, kept)
        if plot is not None:
            draw_claims(kept, plot)
    except (ValueError, OSError) as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(2) from error


if __name__ == "__main__":
    typer.run(main)
