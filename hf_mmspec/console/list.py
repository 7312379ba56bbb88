"""`mmspec list`: drafters for a target, from the Hub or the local cache."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from .safe_text import safe

if TYPE_CHECKING:
    from hf_mmspec.hub.listing import Listed


def list_drafters(
    target: Annotated[str, typer.Argument(metavar="TARGET", help="Repository of the target, ORGANISATION/NAME.")],
) -> None:
    """Drafters whose card names TARGET: on the Hub, or offline in the local cache."""
    from huggingface_hub.errors import OfflineModeIsEnabled
    from huggingface_hub.utils import logging

    from hf_mmspec.hub.listing import UNREACHABLE, check_target, in_cache, on_hub

    check_target(target)
    console = Console()
    logging.set_verbosity_error()  # its client says every retry
    try:
        with console.status("asking the Hub"):
            found, where = on_hub(target), "on the Hub"
    except UNREACHABLE as error:
        is_offline = isinstance(error, OfflineModeIsEnabled)
        reason = "HF_HUB_OFFLINE is set" if is_offline else safe(str(error).partition("\n")[0] or type(error).__name__)
        console.print(
            f"[yellow]The Hub could not be asked ({reason}); this is the local cache:[/yellow]", soft_wrap=True
        )
        found, where = in_cache(target), "in the cache"
    if found:
        console.print(_table(found))
    else:
        console.print(f"no drafter {where} names {safe(target)} as its target", soft_wrap=True)


def _table(found: "Sequence[Listed]") -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("drafter", overflow="fold")
    table.add_column("family")
    for name in ("L", "decode", "downloads"):
        table.add_column(name, justify="right")
    for each in found:
        table.add_row(
            safe(each.repo_id),
            each.family or "another kind",
            _span(each.acceptance_lengths),
            _span(each.decode_speedups, "x"),
            "" if each.downloads is None else safe(each.downloads),
        )
    return table


def _span(values: Sequence[float], unit: str = "") -> str:
    """One number, or the smallest and the largest of several tasks or machines."""
    ends = dict.fromkeys(f"{end:.2f}" for end in (min(values), max(values))) if values else {}
    return "–".join(ends) + (unit if ends else "")
