"""`mmspec bench`: its options, and what can be checked of them before any model is loaded.

Measures nothing itself (`bench.py`); heavy imports happen inside, so that help answers at once.
"""

from math import ceil
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from hf_mmspec.evaluation.budgets import check_budget, expand_budgets
from hf_mmspec.evaluation.task_options import parse_together, parse_token_limits

from .options import Dtype, Model, Quantize, Threads
from .session import check_form, use_threads

_NEW_TOKENS = 160


def bench(
    data: Annotated[
        list[str] | None,
        typer.Option(help="Prompts: a folder, a table or a Hub data set. Repeat for several. Default: embedded."),
    ] = None,
    model: Model = None,
    drafter: Annotated[
        list[str] | None, typer.Option(help="Drafter: folder or Hub repository. Repeat for several.")
    ] = None,
    text_only: Annotated[
        list[str] | None, typer.Option(help="A drafter that is used without images, as a baseline.")
    ] = None,
    blind: Annotated[bool, typer.Option("--blind", help="Measure each --drafter without images too.")] = False,
    temperature: Annotated[
        list[float] | None, typer.Option(min=0, help="0 decodes greedily. Repeat for several. Default: 0.")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", dir_okay=False, writable=True, help="Where the report goes.")
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option(dir_okay=False, writable=True, help="The same as tables for people.")
    ] = None,
    plots: Annotated[
        Path | None, typer.Option(file_okay=False, writable=True, help="Folder for pictures of it (PNG).")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Three prompts per task, one repetition.")] = False,
    dtype: Dtype = "auto",
    quantize: Quantize = None,
    threads: Threads = None,
    task: Annotated[list[str] | None, typer.Option(help="Repeat for several. Default: all of the data.")] = None,
    together: Annotated[
        list[str] | None, typer.Option(help='Tasks for a row of their own, as "scene,chart". Repeat for several.')
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Prompts of a task that are answered together.")] = 1,
    samples: Annotated[
        int | None, typer.Option(min=1, help="Prompts per task. Default: 12, quick 3, or more to fill the last batch.")
    ] = None,
    repetitions: Annotated[int | None, typer.Option(min=1, help="Default: 3, quick 1.")] = None,
    max_new_tokens: Annotated[
        str, typer.Option(help='Length limit of an answer, and of tasks by name: "128,chat=64". Default: 160.')
    ] = str(_NEW_TOKENS),
    split: Annotated[
        str | None, typer.Option(help="Of the data; of the embedded one val is for choosing settings. Default: test.")
    ] = None,
    subset: Annotated[str | None, typer.Option(help="Configuration of a Hub data set.")] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a Hub data set.")] = None,
    pictures: Annotated[str | None, typer.Option(help="Folder that paths of pictures start from.")] = None,
    budget: Annotated[
        list[str] | None,
        typer.Option(help='A draft budget to measure too: "depth=8,top_k=2", or grid for many. Repeat for several.'),
    ] = None,
    memory: Annotated[bool, typer.Option(help="Measure peak memory, in processes of their own.")] = True,
    prompt_column: Annotated[str | None, typer.Option(help="Column of the prompts. Default: guessed.")] = None,
    image_column: Annotated[str | None, typer.Option(help="Column of the pictures. Default: guessed.")] = None,
    messages_column: Annotated[str | None, typer.Option(help="Column of whole conversations.")] = None,
    task_column: Annotated[str | None, typer.Option(help="Column that parts the data into tasks.")] = None,
) -> None:
    """Stock decoding, our loop, prompt lookup and the drafters take turns; every answer is checked."""
    check_form(dtype, quantize)
    if model is not None and not (drafter or text_only):
        raise ValueError("a drafter is made for one target: give --drafter together with --model")
    limit, task_limits = parse_token_limits(max_new_tokens)
    budgets = expand_budgets(budget or ())
    for each in budgets:
        check_budget(each)
    groups = tuple(map(parse_together, together or ()))
    from hf_mmspec.console.bench import Files, Run, show_bench
    from hf_mmspec.data import Columns, Source
    from hf_mmspec.data.sources import refuse_idle_options
    from hf_mmspec.evaluation import loading
    from hf_mmspec.evaluation.bench import Settings
    from hf_mmspec.evaluation.drafters import name_drafters
    from hf_mmspec.evaluation.prompts import EMBEDDED, open_data

    settings = Settings(
        data=tuple(data or (EMBEDDED,)),
        tasks=tuple(task) if task else None,
        samples=samples or batch * ceil((3 if quick else 12) / batch),
        repetitions=repetitions or (1 if quick else 3),
        max_new_tokens=limit or _NEW_TOKENS,
        task_max_new_tokens=task_limits,
        temperatures=tuple(dict.fromkeys(temperature or (0.0,))),
        split=split,
        batch=batch,
        together=groups,
        budgets=budgets,
    )
    if task:
        settings.check_tasks(task)  # without a list, tasks are known when the prompts are
    columns = Columns(prompt=prompt_column, image=image_column, messages=messages_column, task=task_column)
    options = Source(settings.data[0], split, subset, columns, revision=revision, pictures=pictures)
    refuse_idle_options(settings.data, options)
    entries = name_drafters(drafter or ([] if text_only else [loading.default_drafter()]), text_only or (), blind)
    sources = open_data(settings.data, settings.samples, options)
    use_threads(threads)
    run = Run(model, dtype, entries, settings, sources, options, memory, quantize)
    report = show_bench(run, Console(), Files(json_file, markdown, plots))
    raise typer.Exit(_exit_code(report))


def _exit_code(report: dict[str, Any]) -> int:
    return int(any(row["identical"] is False for row in report["rows"]))
