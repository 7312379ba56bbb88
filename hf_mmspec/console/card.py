"""`mmspec card`: writes a drafter's model card, with the numbers of its benchmarks."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape


def card(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of a drafter.")],
    bench: Annotated[
        list[Path] | None,
        typer.Option(help="What `mmspec bench --json` wrote. Repeat for several machines. Default: as in the folder."),
    ] = None,
) -> None:
    """Model card, picture and the numbers they are made of, from JSON alone: nothing is typed."""
    from hf_mmspec.hub.card import write_card

    Console().print(f"written: {escape(str(write_card(folder, bench or ())))}", highlight=False, soft_wrap=True)
