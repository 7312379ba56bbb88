"""`mmspec distil`: the target answers prompts in its own words, to be learned from."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from .choices import DTYPES, check_choice
from .options import Dtype, Model, Quantize, Threads
from .session import check_form


def distil(
    out: Annotated[Path, typer.Option(help="Folder for the answers; the same again goes on where it was.")],
    data: Annotated[
        str,
        typer.Option(
            help="Hub data set, folder or table of prompts, or embedded[:scene|chart|dialog|rewrite|chat|text]."
        ),
    ] = "embedded",
    model: Model = None,
    split: Annotated[str | None, typer.Option(help="Split of the data set. Default: the only one, or train.")] = None,
    subset: Annotated[str | None, typer.Option(help="Configuration of a Hub data set.")] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a Hub data set.")] = None,
    prompt_column: Annotated[str | None, typer.Option(help="Column of the question. Default: by its name.")] = None,
    image_column: Annotated[str | None, typer.Option(help="Column of the picture, or of a list of them.")] = None,
    messages_column: Annotated[str | None, typer.Option(help="Column of whole conversations.")] = None,
    task_column: Annotated[str | None, typer.Option(help="Column to count rows under.")] = None,
    id_column: Annotated[str | None, typer.Option(help="Column that names a row.")] = None,
    pictures: Annotated[str | None, typer.Option(help="Folder that paths of pictures start from.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="No more prompts than these.")] = None,
    skip: Annotated[int, typer.Option(min=0, help="Prompts to leave out before.")] = 0,
    append: Annotated[
        str, typer.Option(help='Put behind every question, e.g. "Please answer with at least 1000 words."')
    ] = "",
    answers: Annotated[Path | None, typer.Option(help="Known answers of the embedded target (answers.jsonl).")] = None,
    temperature: Annotated[float, typer.Option(min=0, help="0 answers greedily.")] = 0.0,
    max_new_tokens: Annotated[int, typer.Option(min=2, help="Length limit of an answer.")] = 256,
    max_length: Annotated[int | None, typer.Option(min=4, help="Of prompt and answer. Default: the target's.")] = None,
    features: Annotated[
        str | None, typer.Option(help="Keep the hidden states that this family reads (a family or a recipe file).")
    ] = None,
    features_dtype: Annotated[str | None, typer.Option(help="Of these. Default: the target's.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Prompts answered at once, which make a shard.")] = 32,
    max_skipped: Annotated[float, typer.Option(min=0, max=1, help="Share of samples that may be unusable.")] = 0.2,
    seed: Annotated[int, typer.Option(help="Of drawn answers.")] = 0,
    dtype: Dtype = "auto",
    quantize: Quantize = None,
    threads: Threads = None,
) -> None:
    """The target answers your prompts (or the embedded ones); the answers are what `mmspec train` learns from."""
    check_form(dtype, quantize)
    check_choice("--features-dtype", features_dtype, DTYPES[1:])
    from hf_mmspec.data.sources import refuse_idle_options
    from hf_mmspec.training.answers.answering import Answering

    from .training_session import columns_of, load_for_training, named_dtype, quiet, recipe_of, source_of

    columns = columns_of(prompt_column, image_column, messages_column, task_column, id_column)
    source = source_of(data, split, subset, revision, columns, append, limit, skip, pictures)
    refuse_idle_options([data], source)
    keep = None if features is None else recipe_of(features, ())
    kept_dtype = named_dtype(features_dtype)
    quiet(threads)
    from hf_mmspec.training.distil import DistilRun, insist_on_run
    from hf_mmspec.training.distil import distil as run_distillation

    run = DistilRun(
        source,
        out,
        model or "the embedded default",
        Answering(temperature, max_new_tokens),
        answers,
        keep,
        kept_dtype,
        max_length,
        batch_size,
        max_skipped,
        seed,
    )
    insist_on_run(run)
    target, processor = load_for_training(model, dtype, quantize)
    console = Console()
    with AnswerBar(console) as bar:
        run_distillation(run, target, processor, bar.say, bar.advance)


class AnswerBar:
    """A progress bar of shards, with tokens per second and what is left."""

    def __init__(self, console: Console):
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
        self._bar = Progress(*columns, console=console)
        self._task = self._bar.add_task("", total=None)
        self._answers = self._tokens = self._skipped = 0

    def __enter__(self) -> "AnswerBar":
        self._bar.start()
        return self

    def __exit__(self, *error) -> None:
        self._bar.stop()

    def say(self, line: str) -> None:
        """A line above the bar."""
        self._bar.console.print(escape(line), highlight=False, soft_wrap=True)

    def advance(self, made) -> None:
        """A shard more."""
        self._answers, self._tokens = self._answers + made.answers, self._tokens + made.tokens
        self._skipped += made.skipped
        elapsed = max(self._bar.tasks[0].elapsed or 0.0, 1e-9)
        text = f"shards, {self._answers} answers, {self._tokens / elapsed:.0f} tokens/s"
        text += f", {self._skipped} left out" if self._skipped else ""
        self._bar.update(self._task, advance=1, total=made.shards, description=text)
