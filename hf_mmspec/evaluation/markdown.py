"""A bench's report for people: a table by drafter and task, the summary in sentences, the definitions.

Words and columns only; every number comes from `report.py`.
"""

from collections.abc import Sequence
from typing import Any

_HEAD = ["drafter", "task", "T", "n", "L", "decode", "slowest", "end to end", "identical", "accuracy (stock)"]
_STRATA = {"answer_length": "tokens of the answer", "image_tokens": "image tokens"}


def to_markdown(report: dict[str, Any]) -> str:
    """Machine and settings, the tables, the summary, the definitions."""
    head, *rows = table_rows(report)
    lines = [
        machine_line(report["machine"]),
        "",
        f"Command: `{report['machine']['command']}`",
        "",
        *markdown_table(head, rows),
        "",
        *summary_lines(report["summary"]),
        *(f"* **Warning**: {warning}." for warning in report["warnings"]),
        "",
        *_choice_lines(report["summary"]),
        *(markdown_table(*strata) if (strata := _strata_table(report["summary"]))[1] else []),
        "",
        *settings_lines(report["settings"]),
        "",
        *(f"* **{name}**: {text}" for name, text in report["definitions"].items()),
    ]
    return "\n".join(lines) + "\n"


def machine_line(machine: dict[str, Any]) -> str:
    """Processor, threads, dtype and versions in a sentence."""
    threads = machine["threads"]
    return (
        f"{machine.get('accelerator') or machine['cpu']}, {threads} thread{'' if threads == 1 else 's'}, "
        f"{machine.get('quantization') or 'weights'} in {machine['dtype']}, "
        f"AMX: {_yes(machine['amx'])}, AVX512-BF16: {_yes(machine['avx512_bf16'])}, "
        f"revision {machine['git_revision']}, torch {machine['versions']['torch']}, "
        f"transformers {machine['versions']['transformers']}."
    )


def settings_lines(settings: dict[str, Any]) -> list[str]:
    """Data, what was skipped of it, and the processors at work."""
    named = [f"{data} ({split or 'its usual split'})" for data, split in settings.get("splits", {}).items()]
    lines = [f"* Data: {', '.join(named)}."] if named else []
    if settings.get("batch", 1) > 1:
        lines.append(f"* Batches: {settings['batch']} prompts of a task in each call, of stock `generate` too.")
    if limits := settings.get("task_max_new_tokens"):
        apart = ", ".join(f"{task} {count}" for task, count in limits.items())
        lines.append(f"* Answers end after {settings['max_new_tokens']} new tokens ({apart}).")
    if rounded := [each["name"] for each in settings.get("drafters", []) if each.get("int8")]:
        lines.append(f"* Drafters rounded to int8, which was faster when they were loaded: {', '.join(rounded)}.")
    for temperature, names in settings.get("processors", {}).items():
        lines.append(f"* Logits processors at T = {temperature}: {', '.join(names) or 'none'}.")
    for reason, count in settings.get("skipped", {}).items():
        lines.append(f"* Skipped: {count} x {reason}.")
    return lines


def table_rows(report: dict[str, Any]) -> list[list[str]]:
    """The table as text: the head, then a row per drafter, task and temperature."""
    return [[*_HEAD, "draft/verify/other", "tokens/s (stock)"], *(_cells(row) for row in report["rows"])]


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table."""
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


def summary_lines(summary: dict[str, dict[str, Any]]) -> list[str]:
    """One sentence for each contender that drafts, and a plain word where it loses."""
    slower = " **It is slower than stock decoding here.**"
    return [f"* {_sentence(name, row)}.{slower * (not row['decode_speedup'] > 1)}" for name, row in summary.items()]


def _sentence(name: str, row: dict[str, Any]) -> str:
    text = f"**{name}**, all tasks: decode {row['decode_speedup']:.2f}x, end to end {row['end_to_end_speedup']:.2f}x"
    if "loop_efficiency" in row:
        text += (
            f", L {row['acceptance_length']:.2f} ({row['accepted_drafts']:.2f} drafts accepted per round; "
            f"break-even at L {row['break_even_acceptance_length']:.2f}), v {row['verify_growth']:.2f}, "
            f"loop efficiency {row['loop_efficiency']:.2f} (v measured apart: {row['verify_growth_measured']:.2f} and "
            f"{row['loop_efficiency_measured']:.2f})"
        )
    if slowest := row.get("slowest_prompt"):
        text += f", slowest prompt {slowest['decode_speedup']:.2f}x ({slowest['task']} {slowest['number']})"
    if row.get("peak_memory_ratio"):
        text += f", peak memory {row['peak_memory_ratio']:.2f}x"
    return text


def _choice_lines(summary: dict[str, dict[str, Any]]) -> list[str]:
    """A table of automatic budgets beside the best ones, where others were measured."""
    head = ["drafter", "task", "automatic budget", "best other budget", "decode", "automatic over best"]
    rows = [
        [
            name,
            choice["task"],
            f"{choice['automatic']:.2f}x",
            choice["best_budget"],
            f"{choice['best']:.2f}x",
            f"{choice['automatic_share']:.3f}",
        ]
        for name, row in summary.items()
        for choice in row["budget_choice"]
    ]
    return [*markdown_table(head, rows), ""] if rows else []


def _strata_table(summary: dict[str, dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    rows = [
        [
            name,
            f"{group['from']} to {group['to']} {unit}",
            str(group["n"]),
            _number(group["acceptance_length"]),
            f"{group['decode_speedup']:.2f}x",
            f"{group['end_to_end_speedup']:.2f}x",
        ]
        for name, row in summary.items()
        for kind, unit in _STRATA.items()
        for group in row["strata"][kind]
    ]
    return ["drafter", "prompts", "n", "L", "decode", "end to end"], rows


def _cells(row: dict[str, Any]) -> list[str]:
    low, high = row["decode_speedup_interval"]
    shares = row.get("round_shares")
    return [
        row["drafter"],
        row["task"],
        f"{row['temperature']:g}",
        f"{row['n']} x {row['repetitions']}",
        _number(row.get("acceptance_length")),
        f"{row['decode_speedup']:.2f}x ({low:.2f}–{high:.2f})",
        f"{row['slowest_prompt']['decode_speedup']:.2f}x" if row["slowest_prompt"] else "",
        f"{row['end_to_end_speedup']:.2f}x",
        _identity_text(row),
        f"{_number(row['accuracy'])} ({_number(row['baseline_accuracy'])})" if row["accuracy"] is not None else "",
        "" if shares is None else " / ".join(f"{shares[part]:.0%}" for part in ("draft", "verify", "other")),
        f"{row['decode_tokens_per_second']:.1f} ({row['stock_decode_tokens_per_second']:.1f})",
    ]


def _identity_text(row: dict[str, Any]) -> str:
    if row["identical"] is None:
        return "sampled"
    ties = f", {row['near_ties']} at a near tie" if row["near_ties"] else ""
    failures = f", **{row['failures']} failed**" if row["failures"] else ""
    return f"{row['identical_samples']} of {row['n']}{ties}{failures}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _yes(flag: bool) -> str:
    return "yes" if flag else "no"
