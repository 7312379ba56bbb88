"""`mmspec`: the command line. Parses, checks what can be checked before any model is loaded, and calls the rest.

Heavy imports happen inside the commands, so that help and bad input answer at once. Exit codes: 0 done, 1 an answer or
a bench row was not identical, 2 bad input or a missing package (one line on stderr, no traceback).
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from hf_mmspec.console.bench_command import bench
from hf_mmspec.console.card import card
from hf_mmspec.console.chat import chat
from hf_mmspec.console.check import check
from hf_mmspec.console.choices import DTYPES, check_choice, check_quantize
from hf_mmspec.console.convert import convert
from hf_mmspec.console.distil import distil
from hf_mmspec.console.list import list_drafters
from hf_mmspec.console.publish import publish
from hf_mmspec.console.rewrite import rewrite
from hf_mmspec.console.session import use_threads
from hf_mmspec.console.train import train

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
    help=("Multimodal speculative decoding for transformers: the same answers, faster."),
)

Model = Annotated[str | None, typer.Option(help="Target: folder or Hub repository. Default: the embedded one.")]
DrafterName = Annotated[str | None, typer.Option("--drafter", help="Drafter: folder or Hub repository.")]
Dtype = Annotated[str, typer.Option(help="auto (this machine's fast one), float32, bfloat16 or float16.")]
Quantize = Annotated[str | None, typer.Option(help="Pack the target's weights: nf4 or int8.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Threads of the processor. Default: torch's.")]
NewTokens = Annotated[int, typer.Option(min=1, help="Length limit of an answer.")]
Temperature = Annotated[float, typer.Option(min=0, help="0 decodes greedily.")]

# What pyproject.toml's extras bring, by the name that is imported.
_EXTRAS = {
    "demo": ("PIL", "matplotlib", "gguf", "numpy"),
    "train": ("accelerate", "datasets", "evaluate", "peft"),
    "rewrite": ("llguidance", "pydantic"),
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
        _check_options(None, None, dtype, quantize)
        from hf_mmspec.console.show import show_samples

        target, processor, loaded = _load(console, None, drafter, dtype, quantize, threads)
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
        _check_options(model, drafter, dtype, quantize)
        from hf_mmspec.data.picture_file import open_picture

        opened = [open_picture(each) for each in image or ()]  # before any model is loaded
        from hf_mmspec.console.show import show_one  # as well: its packages may be missing

        target, processor, loaded = _load(console, model, drafter, dtype, quantize, threads)
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
        _check_options(None, None, dtype, quantize)
        use_threads(threads)
        from hf_mmspec.console import doctor as checks
        from hf_mmspec.evaluation.loading import load_target

        checks.show_machine(console)
        checks.show_cached_models(console)
        checks.show_costs(console, load_target(model, dtype, quantize)[0])


def _check_options(model: str | None, drafter: str | None, dtype: str, quantize: str | None) -> None:
    check_choice("--dtype", dtype, DTYPES)
    check_quantize(quantize)
    if model is not None and drafter is None:
        raise ValueError("a drafter is made for one target: give --drafter together with --model")


def _load(
    console: Console, model: str | None, drafter: str | None, dtype: str, quantize: str | None, threads: int | None
) -> tuple[Any, ...]:
    """Target, processor and drafter; the drafter's config.json comes first, so that a mistyped path fails at once."""
    use_threads(threads)
    from hf_mmspec.auto import read_config
    from hf_mmspec.evaluation.loading import default_drafter, load_drafter, load_target

    drafter = drafter or default_drafter()
    with console.status("loading the models"):
        read_config(drafter, {})
        target, processor = load_target(model, dtype, quantize)
        loaded = load_drafter(drafter, target)
        loaded.bind(target)
    return target, processor, loaded


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
