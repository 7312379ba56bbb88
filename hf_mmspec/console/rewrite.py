"""`mmspec rewrite`: a wish and pictures become a prompt for an image generator, field by field.

Parses and prints; `hf_mmspec.rewriting` does the rest.
"""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from .choices import check_png
from .options import Dtype, MaybeDrafter, Model, Quantize, Temperature, Threads
from .safe_text import safe
from .session import check_form, load_models, use_threads


def rewrite(
    wish: Annotated[str, typer.Argument(metavar="WISH", help='What the image should be: "a cat on my sofa".')],
    image: Annotated[
        list[Path] | None, typer.Option(help="PNG, JPEG, WEBP, GIF, BMP or TIFF. Repeat for several.")
    ] = None,
    model: Model = None,
    drafter: MaybeDrafter = None,
    thinking: Annotated[int, typer.Option(min=0, help="Most tokens of reasoning.")] = 128,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Length limit of the whole answer.")] = 512,
    temperature: Temperature = 0.0,
    dtype: Dtype = "auto",
    quantize: Quantize = None,
    threads: Threads = None,
    json: Annotated[bool, typer.Option("--json", help="One line of JSON and nothing else.")] = False,
    draw: Annotated[
        Path | None,
        typer.Option(help="PNG: the request, its answer token by token, the speed with and without drafter."),
    ] = None,
) -> None:
    """A short wish and pictures become task, aspect ratio and a detailed prompt for an image generator."""
    check_form(dtype, quantize)
    check_png("--draw", draw)
    from hf_mmspec.data.picture_file import open_picture
    from hf_mmspec.rewriting.wish import check_wish

    # before any model is loaded
    check_wish(wish)
    pictures = [open_picture(each) for each in image or ()]
    from hf_mmspec.rewriting.grammar import check_limits

    check_limits(thinking, max_new_tokens)
    if draw is not None:
        if model is not None and drafter is None:
            raise typer.BadParameter("nothing to compare without a drafter: give --drafter", param_hint="--draw")
        from . import picture  # noqa: F401  (its packages may be missing)
    use_threads(threads)
    from hf_mmspec.rewriting.rewriter import PromptRewriter

    options = {"do_sample": True, "temperature": temperature} if temperature > 0 else {}
    models = load_models(model, drafter, dtype, quantize, Console(stderr=True))
    rewriter: Any = PromptRewriter(*models, thinking=thinking, max_new_tokens=max_new_tokens)
    if json:
        print(rewriter(wish, pictures, **options).to_line())
    else:
        console = Console()
        for name, value in rewriter.stream(wish, pictures, **options):
            console.print(f"[bold]{name}[/bold]  {safe(value)}", highlight=False, soft_wrap=True)
    if draw is not None:
        _draw(rewriter, wish, pictures, temperature, draw)


def _draw(rewriter: Any, wish: str, pictures: list[Any], temperature: float, file: Path) -> None:
    """Answer twice more, without and with the drafter, draw both, and say on stderr how they compare."""
    from .compare import compare, verdict
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
    Console(stderr=True).print(verdict(comparison, rewriter.processor.tokenizer), soft_wrap=True)
