"""`mmspec rewrite`: a wish and pictures become a prompt for an image generator, field by field.

Parses and prints; `hf_mmspec.rewriting` does the rest.
"""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from .choices import DTYPES, check_choice
from .safe_text import safe


def rewrite(
    wish: Annotated[str, typer.Argument(metavar="WISH", help='What the image should be: "a cat on my sofa".')],
    image: Annotated[
        list[Path] | None, typer.Option(help="PNG, JPEG, WEBP, GIF, BMP or TIFF. Repeat for several.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Chat model: folder or Hub repository. Default: the embedded one.")
    ] = None,
    drafter: Annotated[
        str | None, typer.Option(help="Drafter: folder or Hub repository. Default: the embedded model's own.")
    ] = None,
    thinking: Annotated[int, typer.Option(min=0, help="Most tokens of reasoning.")] = 128,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Length limit of the whole answer.")] = 512,
    temperature: Annotated[float, typer.Option(min=0, help="0 decodes greedily.")] = 0.0,
    dtype: Annotated[str, typer.Option(help="auto (this machine's fast one), float32, bfloat16 or float16.")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of the processor. Default: torch's.")] = None,
    json: Annotated[bool, typer.Option("--json", help="One line of JSON and nothing else.")] = False,
    draw: Annotated[
        Path | None,
        typer.Option(help="PNG: the request, its answer token by token, the speed with and without drafter."),
    ] = None,
) -> None:
    """A short wish and pictures become task, aspect ratio and a detailed prompt for an image generator."""
    check_choice("--dtype", dtype, DTYPES)
    from hf_mmspec.data.picture_file import open_picture
    from hf_mmspec.rewriting.wish import check_wish

    check_wish(wish)
    pictures = [open_picture(each) for each in image or ()]  # before any model is loaded
    if draw is not None and model is not None and drafter is None:
        raise typer.BadParameter("nothing to compare without a drafter: give --drafter", param_hint="--draw")
    from .session import use_threads

    use_threads(threads)
    options = {"do_sample": True, "temperature": temperature} if temperature > 0 else {}
    rewriter = _rewriter(model, drafter, dtype, thinking, max_new_tokens)
    if json:
        print(rewriter(wish, pictures, **options).to_line())
    else:
        console = Console()
        for name, value in rewriter.stream(wish, pictures, **options):
            console.print(f"[bold]{name}[/bold]  {safe(value)}", highlight=False, soft_wrap=True)
    if draw is not None:
        _draw(rewriter, wish, pictures, temperature, draw)


def _draw(rewriter: Any, wish: str, pictures: list[Any], temperature: float, file: Path) -> None:
    """Answer twice more, without and with the drafter, and draw both. The model is warm by now."""
    from .compare import compare
    from .picture import draw

    inputs = rewriter.inputs(wish, pictures)
    comparison = compare(
        rewriter.model,
        rewriter.processor,
        rewriter.drafter,
        inputs,
        Console(quiet=True),
        max_new_tokens=rewriter.grammar.limits.answer,
        temperature=temperature,
        title="prompt rewriting",
        images=pictures,
        question=wish,
        options=rewriter.form_of(inputs),
    )
    draw([comparison], file)


def _rewriter(model: str | None, drafter: str | None, dtype: str, thinking: int, max_new_tokens: int) -> Any:
    """The rewriter of the named model; a model of the user's own decodes without a drafter unless one is named."""
    from hf_mmspec.auto import read_config
    from hf_mmspec.evaluation.loading import default_drafter, load_drafter, load_target
    from hf_mmspec.rewriting.rewriter import PromptRewriter

    drafter = drafter or (default_drafter() if model is None else None)
    with Console(stderr=True).status("loading the models"):
        if drafter is not None:
            read_config(drafter, {})  # first, so that a mistyped path fails at once
        target, processor = load_target(model, dtype)
        loaded = None if drafter is None else load_drafter(drafter, target)
        return PromptRewriter(target, processor, loaded, thinking=thinking, max_new_tokens=max_new_tokens)
