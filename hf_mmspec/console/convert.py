"""`mmspec convert`: an authors' checkpoint to one of ours, and a short account of it."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from .choices import LAYER_IDS, LAYOUTS, check_choice


def convert(
    source: Annotated[str, typer.Argument(metavar="SRC", help="Folder or Hub repository of the authors.")],
    destination: Annotated[Path, typer.Argument(metavar="DST", help="New folder for the drafter.")],
    family: Annotated[
        str | None, typer.Option(help="eagle, eagle3, flash, msd or vispec, where the checkpoint leaves a doubt.")
    ] = None,
    layer_ids: Annotated[
        str | None, typer.Option(help="What EAGLE-3's layer ids number: inputs or outputs of layers. Default: a rule.")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit on the Hub.")] = None,
    token: Annotated[str | None, typer.Option(help="Hub token. Default: the one you logged in with.")] = None,
    cache_dir: Annotated[Path | None, typer.Option(help="Where downloads are kept.")] = None,
    local_files_only: Annotated[bool, typer.Option("--local-files-only", help="Do not reach for the Hub.")] = False,
) -> None:
    """Published checkpoints of ViSpec, MSD, EAGLE-1/2/3 and FLASH become drafters, weights untouched."""
    check_choice("--family", family, LAYOUTS)
    check_choice("--layer-ids", layer_ids, LAYER_IDS)
    from hf_mmspec.hub import convert as run

    options = {
        "revision": revision,
        "token": token,
        "cache_dir": None if cache_dir is None else str(cache_dir),
        "local_files_only": local_files_only or None,
    }
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    report = run(source, destination, family, layer_ids, **given)
    for line in report.lines():
        Console().print(escape(line), highlight=False, soft_wrap=True)
