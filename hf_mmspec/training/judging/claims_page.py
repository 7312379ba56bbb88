"""The page about the papers' claims: its generated blocks, one about the run and one for each claim.

Writes what stands between a block's two marks, and nothing else.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hf_mmspec.evaluation.markdown import machine_line

from .cells import Cells
from .claim_list import CLAIMS
from .claims_report import report_lines

RUN = "run"  # the block about machine and settings


class PageError(ValueError):
    """The page lacks a block."""


def blocks(kept: Cells) -> dict[str, list[str]]:
    """All blocks by name."""
    return {RUN: run_lines(kept), **{name: report_lines(claim, kept.cells) for name, claim in CLAIMS.items()}}


def run_lines(kept: Cells) -> list[str]:
    """Machine, command and settings."""
    settings = kept.settings
    length = f"{settings['minutes']:g} minutes" if "minutes" in settings else f"{settings['epochs']:g} epochs"
    trained = {(cell["arm"], cell["seed"]) for cell in kept.cells}
    return [
        machine_line(kept.machine),
        "",
        f"Command: `{kept.machine['command']}`",
        "",
        f"{len(trained)} trainings of {length} each; {len(settings['prompts'])} prompts, answers of up to "
        f"{settings['max_new_tokens']} tokens, {_tree(settings['budget'])}. Changes to all recipes: "
        f"{', '.join(settings['changes']) or 'none'}.",
    ]


def fill_page(file: Path, kept: Cells) -> None:
    """Write all blocks of a page anew.

    Raises:
        PageError: it has not got one of them; nothing is written then.
    """
    file.write_text(filled(file.read_text(), blocks(kept), str(file)))


def filled(page: str, texts: Mapping[str, Sequence[str]], name: str) -> str:
    """The page's text with new blocks; `name` is for messages. Raises PageError."""
    for block, lines in texts.items():
        begin, end = f"<!-- claims: {block} -->\n", f"<!-- end of {block} -->"
        before, found, rest = page.partition(begin)
        _, closed, after = rest.partition(end)
        if not (found and closed):
            raise PageError(f"{name}: no block {begin.strip()} ... {end}: give docs/papers.md, or add it")
        page = "\n".join([before + begin, *lines, "", end + after])
    return page


def _tree(budget: Mapping[str, Any]) -> str:
    return (
        f"a {budget['draft_mode']} of {budget['draft_total_tokens']} nodes, {budget['draft_depth']} levels and "
        f"{budget['draft_top_k']} children"
    )
