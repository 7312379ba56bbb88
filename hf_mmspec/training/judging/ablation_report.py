"""The table of an ablation over `kv_loss_weight`: what its cells say together.

Knows no models; every number comes from the cells.
"""

from collections.abc import Sequence
from statistics import mean

from hf_mmspec.evaluation.markdown import markdown_table
from hf_mmspec.modeling.configuration_autoregressive import ACCEPTED_ROWS

from .cells import Cell  # weight, seed, mode, and what `measure_modes` found

HEAD = ["kv_loss_weight", "accepted rows", "L", "L lost by reuse", "drafting, ms per round", "tokens/s", "seeds"]


def is_finished(cells: Sequence[Cell], weight: float, seed: int) -> bool:
    """Whether both ways of drafting were measured."""
    modes = {cell["mode"] for cell in cells if (cell["weight"], cell["seed"]) == (weight, seed)}
    return modes == set(ACCEPTED_ROWS)


def table(cells: Sequence[Cell]) -> list[str]:
    """The lines of a Markdown table: means over seeds, of L the range too. What reuse loses is taken seed by seed."""
    rows = []
    for weight in sorted({cell["weight"] for cell in cells}):
        for mode in ACCEPTED_ROWS:
            chosen = [cell for cell in cells if (cell["weight"], cell["mode"]) == (weight, mode)]
            if chosen:
                rows.append([f"{weight:g}", mode, *_columns(chosen), _lost(cells, weight, mode), *_speeds(chosen)])
    return markdown_table(HEAD, rows)


def _columns(cells: Sequence[Cell]) -> list[str]:
    found = [cell["acceptance_length"] for cell in cells]
    return [f"{mean(found):.2f} ({min(found):.2f} to {max(found):.2f})"]


def _lost(cells: Sequence[Cell], weight: float, mode: str) -> str:
    """Mean difference of L to refresh, of the same drafters."""
    if mode == ACCEPTED_ROWS[0]:
        return ""
    by_seed = {(cell["seed"], cell["mode"]): cell["acceptance_length"] for cell in cells if cell["weight"] == weight}
    pairs = [(by_seed.get((seed, ACCEPTED_ROWS[0])), by_seed[seed, mode]) for seed, m in by_seed if m == mode]
    lost = [before - after for before, after in pairs if before is not None]
    return f"{mean(lost):.3f}" if lost else ""


def _speeds(cells: Sequence[Cell]) -> list[str]:
    drafting, speed = (mean(cell[name] for cell in cells) for name in ("draft_milliseconds", "tokens_per_second"))
    return [f"{drafting:.2f}", f"{speed:.1f}", str(len(cells))]
