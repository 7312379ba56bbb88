"""The document of a bench: JSON with machine, settings, definitions, rows and summary, and a Markdown table of it.

Writes down; measures and judges nothing that `bench.py` and `metrics.py` have not.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

from .bench import Results, Settings
from .contenders import STOCK, Run
from .identity import Difference
from .metrics import DEFINITIONS, acceptance, break_even, decode_rate, end_to_end_rate, round_shares, speedup

_SUMMARY = (
    "decode_speedup",
    "end_to_end_speedup",
    "acceptance_length",
    "accepted_drafts",
    "verify_growth",
    "loop_efficiency",
    "break_even_acceptance_length",
    "round_shares",
    "identical",
    "identical_samples",
    "near_ties",
    "largest_gap",
    "n",
    "accuracy",
    "baseline_accuracy",
    "peak_memory_ratio",
)


def make_report(
    results: Results, settings: Settings, machine: dict[str, Any], memory_ratios: dict[str, float]
) -> dict[str, Any]:
    """The whole report as plain data, see `DEFINITIONS` for its words.

    Args:
        memory_ratios: peak memory over that of the target alone, by contender, where it was measured.
    """
    names = [name for name in results.runs if name != STOCK]
    rows = [_row(results, settings, name, [task], memory_ratios) for name in names for task in settings.tasks]
    whole = {name: _row(results, settings, name, list(settings.tasks), memory_ratios) for name in names}
    return {
        "machine": machine,
        "settings": {**asdict(settings), "baseline": STOCK, "batch": 1},
        "definitions": DEFINITIONS,
        "rows": rows,
        "summary": {name: {key: row[key] for key in _SUMMARY if key in row} for name, row in whole.items()},
    }


def write_json(report: dict[str, Any], path: Path) -> None:
    """Valid JSON: numbers that do not exist are null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(_without_nan(report), indent=1, allow_nan=False) + "\n")


def to_markdown(report: dict[str, Any]) -> str:
    """A table by drafter and task, the machine above it and the definitions below."""
    machine = report["machine"]
    head, *rows = table_rows(report)
    lines = [
        f"{machine['cpu']}, {machine['threads']} threads, {machine['dtype']}, AMX: {_yes(machine['amx'])}, "
        f"AVX512-BF16: {_yes(machine['avx512_bf16'])}, revision {machine['git_revision']}, "
        f"torch {machine['versions']['torch']}, transformers {machine['versions']['transformers']}.",
        "",
        f"Command: `{machine['command']}`",
        "",
        *markdown_table(head, rows),
        "",
        *summary_lines(report["summary"]),
        "",
        *(f"* **{name}**: {text}" for name, text in report["definitions"].items()),
    ]
    return "\n".join(lines) + "\n"


def table_rows(report: dict[str, Any]) -> list[list[str]]:
    """The table as text: the head, then a row per drafter and task."""
    head = ["drafter", "task", "n", "L", "decode", "end to end", "identical", "accuracy (stock)", "draft/verify/other"]
    return [head, *(_cells(row) for row in report["rows"])]


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table."""
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


def _row(
    results: Results, settings: Settings, name: str, tasks: list[str], memory_ratios: dict[str, float]
) -> dict[str, Any]:
    """The numbers of one contender over `tasks`."""
    runs, stock = _joined(results.runs[name], tasks), _joined(results.runs[STOCK], tasks)
    speculations = [run.speculation for run in _flat(runs) if run.speculation is not None]
    decode, decode_interval = speedup(decode_rate, runs, stock)
    whole, whole_interval = speedup(end_to_end_rate, runs, stock)
    row = {
        "drafter": name,
        "task": tasks[0] if len(tasks) == 1 else "all",
        "temperature": settings.temperature,
        "batch": 1,
        "n": len(runs[0]),
        "repetitions": len(runs),
        **acceptance(_flat(runs)),
        "decode_speedup": decode,
        "decode_speedup_interval": decode_interval,
        "end_to_end_speedup": whole,
        "end_to_end_speedup_interval": whole_interval,
        "decode_tokens_per_second": decode_rate(_flat(runs)),
        "stock_decode_tokens_per_second": decode_rate(_flat(stock)),
        "mean_new_tokens": sum(len(run.tokens) for run in runs[0]) / len(runs[0]),
        **_identity(
            [difference for task in tasks for difference in results.differences[name].get(task, [])], settings
        ),
        "accuracy": _mean([results.accuracy[name][task] for task in tasks]),
        "baseline_accuracy": _mean([results.accuracy[STOCK][task] for task in tasks]),
        "peak_memory_ratio": memory_ratios.get(name),
        "is_faster": decode > 1,
    }
    if any(each.rounds for each in speculations):
        growth = results.growth[name]
        row |= {
            "round_shares": round_shares(speculations),
            "verify_growth": growth,
            "loop_efficiency": decode * growth / row["acceptance_length"],
            "break_even_acceptance_length": break_even(speculations, _flat(stock)),
        }
    return row


def _identity(differences: Sequence[Difference | None], settings: Settings) -> dict[str, Any]:
    """What the comparison of every prompt with the baseline gave; null where answers are sampled."""
    if settings.temperature > 0:
        return {"identical": None}
    found = [difference for difference in differences if difference is not None]
    return {
        "identical": all(difference.is_near_tie for difference in found),
        "identical_samples": len(differences) - len(found),
        "near_ties": sum(difference.is_near_tie for difference in found),
        "largest_gap": max((difference.gap for difference in found), default=0.0),
        "failures": sum(not difference.is_near_tie for difference in found),
        "differences": [asdict(difference) for difference in found],
    }


def _joined(by_task: dict[str, list[list[Run]]], tasks: list[str]) -> list[list[Run]]:
    """`[repetition][prompt]` over several tasks."""
    return [list(chain(*rows)) for rows in zip(*(by_task[task] for task in tasks), strict=True)]


def _flat(runs: Sequence[Sequence[Run]]) -> list[Run]:
    return [run for row in runs for run in row]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _cells(row: dict[str, Any]) -> list[str]:
    low, high = row["decode_speedup_interval"]
    shares = row.get("round_shares")
    return [
        row["drafter"],
        row["task"],
        f"{row['n']} x {row['repetitions']}",
        "" if row.get("acceptance_length") is None else f"{row['acceptance_length']:.2f}",
        f"{row['decode_speedup']:.2f}x ({low:.2f}–{high:.2f})",
        f"{row['end_to_end_speedup']:.2f}x",
        _identity_text(row),
        f"{row['accuracy']:.2f} ({row['baseline_accuracy']:.2f})",
        "" if shares is None else " / ".join(f"{shares[part]:.0%}" for part in ("draft", "verify", "other")),
    ]


def _identity_text(row: dict[str, Any]) -> str:
    if row["identical"] is None:
        return "sampled"
    ties = f", {row['near_ties']} at a near tie" if row["near_ties"] else ""
    failures = f", **{row['failures']} failed**" if row["failures"] else ""
    return f"{row['identical_samples']} of {row['n']}{ties}{failures}"


def summary_lines(summary: dict[str, dict[str, Any]]) -> list[str]:
    """One sentence for each contender that drafts, and a plain word where it loses."""
    lines = []
    for name, row in summary.items():
        text = (
            f"**{name}**, all tasks: decode {row['decode_speedup']:.2f}x, end to end {row['end_to_end_speedup']:.2f}x"
        )
        if "loop_efficiency" in row:
            text += (
                f", L {row['acceptance_length']:.2f} ({row['accepted_drafts']:.2f} drafts accepted per round; "
                f"break-even at L {row['break_even_acceptance_length']:.2f}), v {row['verify_growth']:.2f}, "
                f"loop efficiency {row['loop_efficiency']:.2f}"
            )
        if row.get("peak_memory_ratio"):
            text += f", peak memory {row['peak_memory_ratio']:.2f}x"
        lines.append(f"* {text}.{'' if row['decode_speedup'] > 1 else ' **It is slower than stock decoding here.**'}")
    return lines


def _yes(flag: bool) -> str:
    return "yes" if flag else "no"
