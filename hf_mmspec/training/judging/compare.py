"""L of several drafters of the embedded target on the same prompts and with the same tree.

`python -m hf_mmspec.training.judging.compare DRAFTER...`. Automatic budgets differ from drafter to drafter, and L with
them: what `mmspec bench` measures is speed.
"""

import json
from typing import Annotated

import torch
import typer

from hf_mmspec import AutoDrafter
from hf_mmspec.data import Source, open_source
from hf_mmspec.evaluation.loading import load_target

from .acceptance import AcceptanceJudge


def main(
    drafters: Annotated[list[str], typer.Argument(help="Folders.")],
    limit: Annotated[int, typer.Option(help="Prompts of the validation split.")] = 36,
    skip: Annotated[int, typer.Option(help="Prompts to leave out before, such as those of a training.")] = 96,
    dtype: Annotated[str, typer.Option(help="Of target and drafters.")] = "auto",
    threads: Annotated[int, typer.Option(help="Of the processor.")] = 2,
) -> None:
    """A line of JSON for each drafter."""
    torch.set_num_threads(threads)
    model, processor = load_target(None, dtype)
    prompts = list(open_source(Source("embedded", split="val", skip=skip, limit=limit)))
    judge = AcceptanceJudge(model, processor, prompts)
    for folder in drafters:
        lengths = judge(AutoDrafter.from_pretrained(folder))
        print(
            json.dumps({"drafter": folder, **{name: round(value, 3) for name, value in lengths.items()}}), flush=True
        )


if __name__ == "__main__":
    typer.run(main)
