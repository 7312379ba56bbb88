"""The page about the papers' claims: its generated blocks, one for each claim and one about each file of cells.

Claims may be run one by one, so a file fills the blocks of its own claims. Writes what stands between a block's two
marks, and nothing else.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hf_mmspec.evaluation.markdown import machine_line
from hf_mmspec.whole_file import write_whole

from .cells import Cells
from .claims_report import claims_in, report_lines


class PageError(ValueError):
    """The page lacks a block."""


def blocks(kept: Cells) -> dict[str, list[str]]:
    """By name what a file has to say: on its machine and settings, and on each claim that was run."""
    return {
        f"run of {kept.file.stem}": run_lines(kept),
        **{claim.name: report_lines(claim, kept.cells) for claim in claims_in(kept.cells)},
    }


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
    """Write the blocks of a file's claims anew.

    Raises:
        PageError: the page has not got one of them; nothing is written then.
    """
    write_whole(file, filled(file.read_text(), blocks(kept), str(file)))


def filled(page: str, texts: Mapping[str, Sequence[str]], name: str) -> str:
    """The page's text with new blocks; `name` is for messages. Raises PageError."""
    for block, lines in texts.items():
        begin, end = f"<!-- claims: {block} -->\n", f"<!-- end of {block} -->"
        before, found, rest = page.partition(begin)
        _, closed, after = rest.partition(end)
        if not (found and closed):
            raise PageError(f"{name}: no block {begin.strip()} ... {end}: add it, or give a page that has it")
        page = "\n".join([before + begin, *lines, "", end + after])
    return page


def _tree(budget: Mapping[str, Any]) -> str:
    return (
        f"a {budget['draft_mode']} of {budget['draft_total_tokens']} nodes, {budget['draft_depth']} levels and "
        f"{budget['draft_top_k']} children"
    )
