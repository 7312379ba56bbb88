"""The flow of `mmspec demo`, `generate` and `bench` once the models are loaded: show, measure, write files.

Prints to a rich console; decides nothing about decoding.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markdown import Markdown
from rich.markup import escape
from rich.table import Table
from transformers import PreTrainedModel

from hf_mmspec.data import Conversation, check_text, model_inputs, user_message
from hf_mmspec.demo import samples
from hf_mmspec.evaluation.bench import Settings, run_bench
from hf_mmspec.evaluation.contenders import contenders_with
from hf_mmspec.evaluation.loading import default_drafter
from hf_mmspec.evaluation.machine import machine_facts
from hf_mmspec.evaluation.memory import METHOD, MeasurementError, peak_memory_ratio
from hf_mmspec.evaluation.report import make_report, summary_lines, table_rows, to_markdown, write_json
from hf_mmspec.modeling import Drafter

from .compare import Comparison, compare, warm_up
from .picture import draw

_MEMORY_TOKENS = 128


def show_samples(
    target: PreTrainedModel,
    processor: Any,
    drafter: Drafter,
    console: Console,
    folder: Path,
    max_new_tokens: int,
) -> bool:
    """One held-out image of every task, answered twice, and one picture; returns whether all answers agree."""
    folder.mkdir(parents=True, exist_ok=True)
    comparisons = []
    for index, sample in enumerate(samples("test", n=3)):
        path = folder / f"{sample['task']}.png"
        sample["image"].save(path)
        conversation = Conversation(sample["messages"], [sample["image"]], task=sample["task"])
        inputs = _inputs(processor, conversation, target)
        if index == 0:
            warm_up(target, drafter, inputs)
        question = _last_question(conversation)
        console.rule(f"{sample['task']}: {path}", align="left")
        console.print(f"[bold]{escape(question)}[/bold]\n")
        comparisons.append(
            compare(
                target,
                processor,
                drafter,
                inputs,
                console,
                max_new_tokens=max_new_tokens,
                title=sample["task"],
                images=conversation.pictures,
                question=question,
            )
        )
    return _finish(comparisons, console, folder / "demo.png")


def show_one(
    target: PreTrainedModel,
    processor: Any,
    drafter: Drafter,
    console: Console,
    images: Sequence[Any],
    prompt: str,
    picture: Path,
    *,
    title: str,
    max_new_tokens: int,
    temperature: float,
) -> bool:
    """The user's images (opened; there may be none) and question, answered twice; returns whether the answers agree.

    Raises:
        PlaceholderError: the prompt holds a word that the target reads as a place for a picture.
    """
    check_text(processor, target.config, prompt)
    inputs = _inputs(processor, Conversation([user_message(prompt, len(images))], images), target)
    warm_up(target, drafter, inputs)
    comparison = compare(
        target,
        processor,
        drafter,
        inputs,
        console,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        title=title,
        images=images,
        question=prompt,
    )
    return _finish([comparison], console, picture)


def show_bench(
    target: PreTrainedModel,
    processor: Any,
    drafter: Drafter,
    console: Console,
    settings: Settings,
    *,
    budgets: Sequence[str],
    sources: dict[str, str | None],
    measure_memory: bool,
    json_file: Path | None,
    markdown_file: Path | None,
) -> dict[str, Any]:
    """Measure all contenders, print the table and write the files that are asked for; returns the report.

    Args:
        budgets: draft budgets to measure besides the usual one.
        sources: `model`, `drafter` and `dtype` as the user named them, for the processes that measure memory.
    """
    name = drafter.config.model_type
    with console.status("warming up") as status:
        contenders = contenders_with(drafter, name, budgets)
        results = run_bench(target, processor, contenders, settings, progress=status.update)
        ratios = {}
        if measure_memory:
            status.update("peak memory, in processes of their own")
            source = sources["drafter"] or default_drafter()
            try:
                ratios[name] = peak_memory_ratio(sources["model"], source, sources["dtype"] or "auto", _MEMORY_TOKENS)
            except MeasurementError as error:  # the rest took much longer to measure, and is not lost for it
                console.print(f"[yellow]{escape(str(error))}[/yellow]")
    machine = {**machine_facts(target.dtype, target.device), "memory_method": METHOD}
    report = make_report(results, settings, machine, ratios)
    console.print(_rich_table(report))
    for line in summary_lines(report["summary"]):
        console.print(Markdown(line))
    if json_file is not None:
        write_json(report, json_file)
    if markdown_file is not None:
        markdown_file.parent.mkdir(parents=True, exist_ok=True)
        markdown_file.write_text(to_markdown(report))
    return report


def _inputs(processor: Any, conversation: Conversation, target: PreTrainedModel) -> dict[str, Any]:
    """What `target.generate` takes, on its device, pixels in its dtype."""
    return dict(model_inputs(processor, [conversation]).to(target.device, target.dtype))


def _last_question(conversation: Conversation) -> str:
    return " ".join(part["text"] for part in conversation.messages[-1]["content"] if part["type"] == "text")


def _finish(comparisons: list[Comparison], console: Console, picture: Path) -> bool:
    draw(comparisons, picture)
    console.print(f"\npicture: {picture}")
    return all(each.difference is None or each.difference.is_near_tie for each in comparisons)


def _rich_table(report: dict[str, Any]) -> Table:
    """The columns of the report's table that fit a terminal."""
    head, *rows = table_rows(report)
    shown = [head.index(name) for name in ("drafter", "task", "L", "decode", "end to end", "identical")]
    table = Table(*(head[index] for index in shown), box=box.SIMPLE_HEAD)
    for row in rows:
        table.add_row(*(row[index] for index in shown))
    return table
