"""`mmspec publish`: shows what of a drafter's folder goes to the Hub, with sizes, and sends it.

Decides nothing about files; `hub/` does.
"""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table


def publish(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The drafter's folder, with its card (README.md).")],
    repo_id: Annotated[str, typer.Option("--repo-id", help="ORG/NAME on the Hub; made if it is not there.")],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be sent, and stop.")] = False,
    revision: Annotated[str | None, typer.Option(help="Branch, made if it is not there. Default: main.")] = None,
    token: Annotated[str | None, typer.Option(help="Hub token. Default: the one you logged in with.")] = None,
) -> None:
    """A drafter to the Hub: weights, config, card, and the code that runs it without hf_mmspec, in one commit."""
    from hf_mmspec.hub import plan_publication
    from hf_mmspec.hub import publish as run

    console = Console()
    publication = plan_publication(folder, repo_id=repo_id)
    table = Table(title=escape(f"{folder} to {repo_id}"), caption=f"{decimal(publication.nbytes)} in all")
    table.add_column("file")
    table.add_column("size", justify="right")
    for file in publication.files:
        table.add_row(escape(file.path), decimal(file.nbytes))
    console.print(table)
    for name, why in publication.left_out.items():
        console.print(f"stays here: {escape(name)} ({why})", highlight=False, soft_wrap=True)
    if dry_run:
        console.print("nothing was sent (--dry-run)")
        return
    commit = run(publication, repo_id, private=private or None, revision=revision, token=token)
    console.print(f"published: {escape(commit)}", highlight=False, soft_wrap=True)
