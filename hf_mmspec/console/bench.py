"""The flow of `mmspec bench`: load, measure every temperature, print the table, write the files.

Prints to a rich console; what is measured and what the words mean is in `hf_mmspec.evaluation`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
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
from hf_mmspec.evaluation.bench import Results, Settings, run_bench
from hf_mmspec.evaluation.contenders import contenders_with
from hf_mmspec.evaluation.drafters import Entry, load_drafters
from hf_mmspec.evaluation.machine import machine_facts
from hf_mmspec.evaluation.markdown import settings_lines, summary_lines, table_rows, to_markdown
from hf_mmspec.evaluation.memory import METHOD, MeasurementError, Question, peak_memory_ratios
from hf_mmspec.evaluation.processors import active_processors
from hf_mmspec.evaluation.prompts import Prompts, collect_prompts, split_of
from hf_mmspec.evaluation.report import make_report
from hf_mmspec.modeling import Drafter
from hf_mmspec.modeling.int8_linear import has_int8_weights
from hf_mmspec.quantise import quantisation_of
from hf_mmspec.whole_file import write_json, write_whole

from .safe_text import safe

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
    """Measure all contenders, print the table and write the files that are asked for; returns the report.

    JSON and Markdown are written after every task too, with what is known so far: a bench that is killed is not lost.
    """
    files.make_folders()
    draw = _plotter() if files.plots else None  # matplotlib may be missing: better known before than after
    with told(console) as say:
        say("loading the models")
        target, processor = loading.load_target(run.model, run.dtype, run.quantize)
        drafters = load_drafters(run.entries, target)
        contenders = contenders_with(drafters, run.settings.budgets, run.settings.batch)
        say("reading the prompts")
        prompts = collect_prompts(target, processor, run.sources, run.settings.samples, run.settings.tasks)
        run.settings.check_tasks(prompts.by_task)
        found = _found(run, target, drafters, prompts)
        machine = {**machine_facts(target.dtype, target.device), **_how(target)}
        results = list[Results]()

        def keep(newest: Results) -> None:
            so_far = f"so far {', '.join(newest.image_tokens)} at T = {newest.temperature:g}"
            _write(make_report([*results, newest], run.settings, machine, found=found, unfinished=so_far), files)

        say("warming up")
        for temperature in run.settings.temperatures:
            results.append(
                run_bench(target, processor, contenders, prompts.by_task, run.settings, temperature, say, keep)
            )
        ratios = _memory(run, console, say) if run.memory else {}
    report = make_report(results, run.settings, machine, ratios, found)
    _print(report, console)
    _write(report, files)
    if draw is not None and files.plots is not None:
        console.print("plots: " + ", ".join(safe(path) for path in draw(report, files.plots)), soft_wrap=True)
    return report


@contextmanager
def told(console: Console) -> Iterator[Callable[[str], None]]:
    """What is being done: beside a spinner on a terminal, else a line each on stderr, since a bench takes long."""
    if console.is_terminal:
        with console.status("") as status:
            yield status.update
    else:
        yield partial(Console(stderr=True).print, highlight=False, markup=False)


def _plotter() -> Any:
    from hf_mmspec.evaluation.plots import draw_plots

    return draw_plots


def _memory(run: Run, console: Console, say: Callable[[str], None]) -> dict[str, float]:
    say("peak memory, in processes of their own")
    source = replace(run.options, data=run.settings.data[0])
    question = Question(run.model, run.dtype, _MEMORY_TOKENS, source, run.quantize, run.settings.batch)
    try:
        return peak_memory_ratios(question, run.entries)
    except MeasurementError as error:  # the rest took much longer to measure, and is not lost for it
        console.print(f"[yellow]{escape(str(error))}[/yellow]")
        return {}


def _how(target: PreTrainedModel) -> dict[str, Any]:
    """What the machine's facts do not say about the measurement."""
    return {"quantization": quantisation_of(target), "memory_method": METHOD}


def _found(run: Run, target: PreTrainedModel, drafters: Mapping[str, Drafter], prompts: Prompts) -> dict[str, Any]:
    """What the settings turned out to mean."""
    first = next(iter(prompts.by_task.values()))[0]
    return {
        "model": run.model,
        "model_is_local": run.model is not None and Path(run.model).exists(),
        "drafters": [{**asdict(entry), "int8": has_int8_weights(drafters[entry.name])} for entry in run.entries],
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
        write_json(files.json, report)
    if files.markdown is not None:
        write_whole(files.markdown, to_markdown(report))
