"""`mmspec check`: whether a drafter fits a target, a line for each thing that was looked at."""

from typing import Annotated

import typer
from rich.console import Console
from rich.padding import Padding

from .choices import check_quantize
from .safe_text import safe

_DTYPES = ("auto", "float32", "bfloat16", "float16")
_COLOURS = {"ok": "green", "warn": "yellow", "FAIL": "bold red"}
_EMBEDDED = "embedded"


def check(
    target: Annotated[
        str | None, typer.Argument(metavar="TARGET", help='Folder or Hub repository, or "embedded". Default: that.')
    ] = None,
    drafter: Annotated[
        str | None, typer.Argument(metavar="DRAFTER", help="Folder or Hub repository. Default: the embedded one's.")
    ] = None,
    dtype: Annotated[str, typer.Option(help="auto (this machine's fast one), float32, bfloat16 or float16.")] = "auto",
    quantize: Annotated[str | None, typer.Option(help="Pack the target's weights: nf4 or int8.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of the processor. Default: torch's.")] = None,
) -> None:
    """Does this drafter fit this target, and what is it good for here? Exit code 1 where it does not fit."""
    if dtype not in _DTYPES:
        raise ValueError(f"--dtype {dtype}: choose one of {', '.join(_DTYPES)}")
    check_quantize(quantize)
    model = None if target in (None, _EMBEDDED) else target
    if model is not None and drafter is None:
        raise ValueError("a drafter is made for one target: give both, as in `mmspec check TARGET DRAFTER`")
    from .session import use_threads

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
