"""The flow of `mmspec bench`: load, measure every temperature, print the table, write the files.

Prints to a rich console; what is measured and what the words mean is in `hf_mmspec.evaluation`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markdown import Markdown
from rich.markup import escape
from rich.table import Table
from transformers import PreTrainedModel

from hf_mmspec.data import Conversations, Source
from hf_mmspec.evaluation import loading
from hf_mmspec.evaluation.bench import Settings, run_bench
from hf_mmspec.evaluation.contenders import contenders_with
from hf_mmspec.evaluation.drafters import Entry, load_drafters
from hf_mmspec.evaluation.machine import machine_facts
from hf_mmspec.evaluation.markdown import settings_lines, summary_lines, table_rows, to_markdown
from hf_mmspec.evaluation.memory import METHOD, MeasurementError, Question, peak_memory_ratios
from hf_mmspec.evaluation.processors import active_processors
from hf_mmspec.evaluation.prompts import Prompts, collect_prompts, split_of
from hf_mmspec.evaluation.report import make_report, write_json
from hf_mmspec.quantise import quantisation_of

_MEMORY_TOKENS = 128
_SHOWN = ("drafter", "task", "T", "L", "decode", "end to end", "identical")


@dataclass(frozen=True)
class Run:
    """What is asked for.

    Args:
        model, dtype, quantize: as `load_target` takes them.
        entries: the drafters, at least one.
        sources: opened from `settings.data` with `options`.
        options: what is said about the sources, see `open_data`.
        memory: whether peak memory is measured, in processes of their own.
    """

    model: str | None
    dtype: str
    entries: Sequence[Entry]
    settings: Settings
    sources: Mapping[str, Conversations]
    options: Source
    memory: bool = True
    quantize: str | None = None


@dataclass(frozen=True)
class Files:
    """Where results go, as far as they are wanted."""

    json: Path | None = None
    markdown: Path | None = None
    plots: Path | None = None

    def make_folders(self) -> None:
        """Before anything is measured, so that a place that cannot be written costs nothing."""
        for folder in (self.json and self.json.parent, self.markdown and self.markdown.parent, self.plots):
            if folder is not None:
                folder.mkdir(parents=True, exist_ok=True)


def show_bench(run: Run, console: Console, files: Files) -> dict[str, Any]:
    """Measure all contenders, print the table and write the files that are asked for; returns the report."""
    files.make_folders()
    draw = _plotter() if files.plots else None  # matplotlib may be missing: better known before than after
    with console.status("loading the models") as status:
        target, processor = loading.load_target(run.model, run.dtype, run.quantize)
        contenders = contenders_with(load_drafters(run.entries, target), run.settings.budgets, run.settings.batch)
        status.update("reading the prompts")
        prompts = collect_prompts(target, processor, run.sources, run.settings.samples, run.settings.tasks)
        run.settings.check_tasks(prompts.by_task)
        status.update("warming up")
        results = [
            run_bench(target, processor, contenders, prompts.by_task, run.settings, temperature, status.update)
            for temperature in run.settings.temperatures
        ]
        status.update("peak memory, in processes of their own")
        ratios = _memory(run, console) if run.memory else {}
    packed = quantisation_of(target)
    machine = {**machine_facts(target.dtype, target.device), "quantization": packed, "memory_method": METHOD}
    report = make_report(results, run.settings, machine, ratios, _found(run, target, prompts))
    _print(report, console)
    _write(report, files)
    if draw is not None and files.plots is not None:
        console.print("plots: " + ", ".join(str(path) for path in draw(report, files.plots)), soft_wrap=True)
    return report


def _plotter() -> Any:
    from hf_mmspec.evaluation.plots import draw_plots

    return draw_plots


def _memory(run: Run, console: Console) -> dict[str, float]:
    source = replace(run.options, data=run.settings.data[0])
    question = Question(run.model, run.dtype, _MEMORY_TOKENS, source, run.quantize, run.settings.batch)
    try:
        return peak_memory_ratios(question, run.entries)
    except MeasurementError as error:  # the rest took much longer to measure, and is not lost for it
        console.print(f"[yellow]{escape(str(error))}[/yellow]")
        return {}


def _found(run: Run, target: PreTrainedModel, prompts: Prompts) -> dict[str, Any]:
    """What the settings turned out to mean."""
    first = next(iter(prompts.by_task.values()))[0]
    return {
        "model": run.model,
        "model_is_local": run.model is not None and Path(run.model).exists(),
        "drafters": [asdict(entry) for entry in run.entries],
        "splits": {data: split_of(data, run.settings.split) for data in run.settings.data},
        "prompts": {task: len(members) for task, members in prompts.by_task.items()},
        "skipped": dict(prompts.skipped),
        "processors": {
            f"{temperature:g}": active_processors(target, first.inputs, temperature)
            for temperature in run.settings.temperatures
        },
    }


def _print(report: dict[str, Any], console: Console) -> None:
    head, *rows = table_rows(report)
    shown = [head.index(name) for name in _SHOWN]
    table = Table(*(head[index] for index in shown), box=box.SIMPLE_HEAD)
    for row in rows:
        table.add_row(*(escape(row[index]) for index in shown))
    console.print(table)
    for line in (*summary_lines(report["summary"]), *settings_lines(report["settings"])):
        console.print(Markdown(line))
    for warning in report["warnings"]:
        console.print(f"[yellow]{escape(warning)}[/yellow]")


def _write(report: dict[str, Any], files: Files) -> None:
    if files.json is not None:
        write_json(report, files.json)
    if files.markdown is not None:
        files.markdown.write_text(to_markdown(report))
