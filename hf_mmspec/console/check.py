"""`mmspec check`: whether a drafter fits a target, a line for each thing that was looked at."""

from typing import Annotated

import typer
from rich.console import Console
from rich.padding import Padding

from .options import Dtype, Quantize, Threads
from .safe_text import safe
from .session import check_form, use_threads

_COLOURS = {"ok": "green", "warn": "yellow", "FAIL": "bold red"}
_EMBEDDED = "embedded"


def check(
    target: Annotated[
        str | None, typer.Argument(metavar="TARGET", help='Folder or Hub repository, or "embedded". Default: that.')
    ] = None,
    drafter: Annotated[
        str | None, typer.Argument(metavar="DRAFTER", help="Folder or Hub repository. Default: the embedded one's.")
    ] = None,
    dtype: Dtype = "auto",
    quantize: Quantize = None,
    threads: Threads = None,
) -> None:
    """Does this drafter fit this target, and what is it good for here? Exit code 1 where it does not fit."""
    check_form(dtype, quantize)
    model = None if target in (None, _EMBEDDED) else target
    if model is not None and drafter is None:
        raise ValueError("a drafter is made for one target: give both, as in `mmspec check TARGET DRAFTER`")
    use_threads(threads)
    from hf_mmspec.evaluation import loading
    from hf_mmspec.evaluation.fit import FAIL, examine

    drafter = drafter or loading.default_drafter()
    console = Console()
    console.print(f"{safe(drafter)} for {safe(model or 'the embedded default')}", soft_wrap=True)
    fits = True
    with console.status("looking"):
        for each in examine(model, drafter, dtype, quantize):
            fits = fits and each.verdict != FAIL
            verdict = f"[{_COLOURS[each.verdict]}]{each.verdict:<4}[/]"
            console.print(f"{verdict}  {safe(each.check):<18} {safe(each.found)}", highlight=False, soft_wrap=True)
            if each.advice:
                console.print(Padding(safe(each.advice), (0, 0, 0, 6)), highlight=False)
    console.print("[green]they fit[/]" if fits else "[bold red]they do not fit[/]")
    raise typer.Exit(0 if fits else 1)
