"""`mmspec`: the command line. Parses, checks what can be checked before any model is loaded, and calls the rest.

Heavy imports happen inside the commands, so that help and bad input answer at once. Exit codes: 0 done, 1 an answer or
a bench row was not identical, 2 bad input or a missing package (one line on stderr, no traceback).
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from hf_mmspec.console.bench_command import bench
from hf_mmspec.console.card import card
from hf_mmspec.console.chat import chat
from hf_mmspec.console.check import check
from hf_mmspec.console.choices import check_png
from hf_mmspec.console.convert import convert
from hf_mmspec.console.distil import distil
from hf_mmspec.console.list import list_drafters
from hf_mmspec.console.options import DrafterName, Dtype, Model, NewTokens, Quantize, Temperature, Threads
from hf_mmspec.console.publish import publish
from hf_mmspec.console.rewrite import rewrite
from hf_mmspec.console.session import check_form, load_models, use_threads
from hf_mmspec.console.train import train

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
    help=("Multimodal speculative decoding for transformers: the same answers, faster."),
)

# What pyproject.toml's extras bring, by the name that is imported.
_EXTRAS = {
    "demo": ("PIL", "matplotlib", "gguf", "numpy"),
    "train": ("accelerate", "datasets", "evaluate", "peft"),
    "rewrite": ("llguidance", "pydantic", "pydantic_core"),
    "quantized": ("bitsandbytes",),
}


@app.command()
def demo(
    drafter: DrafterName = None,
    dtype: Dtype = "auto",
    quantize: Quantize = None,
    threads: Threads = None,
    max_new_tokens: NewTokens = 200,
    output: Annotated[Path, typer.Option(help="Folder for the images and the picture.")] = Path("outputs"),
) -> None:
    """Three held-out images, answered without and with the drafter by the embedded target."""
    console = Console()
    with _one_line_errors():
        check_form(dtype, quantize)
        from hf_mmspec.console.show import show_samples

        use_threads(threads)
        target, processor, loaded = load_models(None, drafter, dtype, quantize, console)
        assert loaded is not None
        identical = show_samples(target, processor, loaded, console, output, max_new_tokens)
    raise typer.Exit(0 if identical else 1)


@app.command()
def generate(
    prompt: Annotated[str, typer.Option(help="What to ask.")],
    image: Annotated[
        list[Path] | None,
        typer.Option(help="PNG, JPEG, WEBP, GIF, BMP or TIFF. Repeat for several; none asks without an image."),
    ] = None,
    model: Model = None,
    drafter: DrafterName = None,
    dtype: Dtype = "auto",
    quantize: Quantize = None,
    threads: Threads = None,
    max_new_tokens: NewTokens = 200,
    temperature: Temperature = 0.0,
    output: Annotated[Path, typer.Option(help="Where the picture goes.")] = Path("outputs/generate.png"),
) -> None:
    """Your own images and question, and your own model and drafter if you like."""
    console = Console()
    with _one_line_errors():
        check_form(dtype, quantize)
        if model is not None and drafter is None:
            raise ValueError("a drafter is made for one target: give --drafter together with --model")
        check_png("--output", output)
        from hf_mmspec.data.picture_file import open_picture

        opened = [open_picture(each) for each in image or ()]  # before any model is loaded
        from hf_mmspec.console.show import show_one  # as well: its packages may be missing

        use_threads(threads)
        target, processor, loaded = load_models(model, drafter, dtype, quantize, console)
        assert loaded is not None
        identical = show_one(
            target,
            processor,
            loaded,
            console,
            opened,
            prompt,
            output,
            title=", ".join(each.name for each in image or ()) or "text",
            max_new_tokens=max_new_tokens,
            temperature=temperature,
        )
    raise typer.Exit(0 if identical else 1)


@app.command()
def doctor(model: Model = None, dtype: Dtype = "auto", quantize: Quantize = None, threads: Threads = None) -> None:
    """Versions, processor, fast dtype, what n tokens cost here, cached models."""
    console = Console()
    with _one_line_errors():
        check_form(dtype, quantize)
        use_threads(threads)
        from hf_mmspec.console import doctor as checks
        from hf_mmspec.evaluation.loading import load_target

        checks.show_machine(console)
        checks.show_cached_models(console)
        checks.show_costs(console, load_target(model, dtype, quantize)[0])


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """What a user can mend is one line and exit code 2; anything else is a bug and keeps its traceback."""
    try:
        yield
    except (ValueError, OSError) as error:
        _fail(str(error))
    except ImportError as error:
        _fail(_how_to_install(error))


def _how_to_install(error: ImportError) -> str:
    """What to do about a package that is not installed; any other failed import is a bug, and is raised again."""
    if error.name is None:  # not python's own words: ours or transformers', which name the package and the fix
        return str(error)
    module = error.name.partition(".")[0]
    if not isinstance(error, ModuleNotFoundError) or module == __package__:
        raise error
    extra = next((extra for extra, modules in _EXTRAS.items() if module in modules), None)
    if extra is None:
        return f"the Python module {module} is missing: install the package that has it"
    return f"the Python module {module} is missing: run pip install 'hf-mmspec[{extra}]', in a checkout '.[{extra}]'"


def _fail(message: str) -> None:
    Console(file=sys.stderr).print(f"[red]error:[/red] {escape(' '.join(message.split()))}", soft_wrap=True)
    raise typer.Exit(2)


for _command in (bench, card, chat, check, convert, distil, publish, rewrite, train):
    app.command()(_one_line_errors()(_command))
app.command("list")(_one_line_errors()(list_drafters))
