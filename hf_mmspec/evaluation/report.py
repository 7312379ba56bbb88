"""The document of a bench: JSON with machine, settings, definitions, warnings, rows and summary.

Writes down; measures and judges nothing that `bench.py` and `metrics.py` have not. For people: `markdown.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from .bench import Results, Settings
from .budget_choice import budget_choices
from .contenders import STOCK
from .definitions import DEFINITIONS
from .repetition import NGRAM, THRESHOLD, is_repetitive
from .rows import make_row
from .strata import strata

_SUMMARY = (
    "decode_speedup",
    "slowest_prompt",
    "end_to_end_speedup",
    "acceptance_length",
    "accepted_drafts",
    "acceptance_by_position",
    "verify_growth",
    "loop_efficiency",
    "verify_growth_measured",
    "loop_efficiency_measured",
    "break_even_acceptance_length",
    "round_shares",
    "identical",
    "identical_samples",
    "near_ties",
    "largest_gap",
    "n",
    "repetitive_answers",
    "accuracy",
    "baseline_accuracy",
    "peak_memory_ratio",
)


def make_report(
    results: Sequence[Results],
    settings: Settings,
    machine: dict[str, Any],
    memory_ratios: Mapping[str, float] | None = None,
    found: Mapping[str, Any] | None = None,
    unfinished: str | None = None,
) -> dict[str, Any]:
    """The whole report as plain data, see `DEFINITIONS` for its words.

    Args:
        results: one for each temperature.
        memory_ratios: peak memory over that of the target alone, by contender, where it was measured.
        found: what was found out about the settings (`processors`, `skipped`, `drafters`), for `settings`.
        unfinished: how far a bench is that still runs, which becomes a warning; groups of tasks that are not all there
            are left out.
    """
    rows: list[dict[str, Any]] = []
    summary: dict[str, dict[str, Any]] = {}
    for each in results:
        ratios, count = memory_ratios or {}, len(each.image_tokens)
        measured = {name: _rows_of(each, name, settings, ratios.get(name)) for name in each.runs if name != STOCK}
        for name, (*parts, overall) in measured.items():
            rows += parts
            summary[summary_name(name, each.temperature)] = {
                **_shortened(overall),
                "tasks": {row["task"]: _shortened(row) for row in parts[:count]},
                "together": {row["task"]: _shortened(row) for row in parts[count:]},
                "budget_choice": budget_choices(measured, name, settings.budgets),
                "strata": strata(each, name),
            }
    return {
        "machine": machine,
        "settings": {**asdict(settings), "baseline": STOCK, **(found or {})},
        "definitions": DEFINITIONS,
        "warnings": [
            *([f"not finished: {unfinished}"] if unfinished else []),
            *(warning for each in results for warning in _repetition_warnings(each)),
        ],
        "rows": rows,
        "summary": summary,
    }


def _rows_of(results: Results, name: str, settings: Settings, ratio: float | None) -> list[dict[str, Any]]:
    """A row for each task, then for each group of tasks, then for all of them."""
    tasks = list(results.image_tokens)
    groups = [group for group in settings.together if set(group) <= set(tasks)]
    return [
        *(make_row(results, name, [task], ratio) for task in tasks),
        *(make_row(results, name, group, ratio, label=" + ".join(group)) for group in groups),
        make_row(results, name, tasks, ratio),
    ]


def summary_name(drafter: str, temperature: float) -> str:
    """The key of a drafter in the summary: its name at temperature 0, else `NAME@1`."""
    return drafter if temperature == 0 else f"{drafter}@{temperature:g}"


def _shortened(row: dict[str, Any]) -> dict[str, Any]:
    return {key: row[key] for key in _SUMMARY if key in row}


def _repetition_warnings(results: Results) -> list[str]:
    """A line for each task in which the target itself repeats itself."""
    lines = []
    for task, rows in results.runs[STOCK].items():
        answers = [answer for run in rows[0] for answer in run.rows]
        count = sum(map(is_repetitive, answers))
        if count:
            lines.append(
                f"{task} at T = {results.temperature:g}: {count} of {len(answers)} stock answers are repetitive (more "
                f"than {THRESHOLD:.0%} of their {NGRAM}-grams are repeats), which flatters every drafter"
            )
    return lines
