"""Answers one prompt without and with the drafter, streaming both, and says what the difference is.

Prints on the console it is given; the picture of it is `picture.py`'s business.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from rich.console import Console
from rich.markup import escape
from transformers import PreTrainedModel, TextStreamer

from hf_mmspec.evaluation.contenders import STOCK, Contender, Run, answer
from hf_mmspec.evaluation.identity import Difference, find_difference
from hf_mmspec.modeling import Drafter

from .safe_text import safe_lines

_WARM_UP_TOKENS = 12


class Origin(Enum):
    """How a token of a drafted answer came to be."""

    TARGET = "by the target"
    DRAFTED = "drafted, then accepted"
    FORCED = "forced by the grammar"


@dataclass
class Comparison:
    """Two answers to one prompt.

    Args:
        title: what the picture is called.
        images: PIL images of the prompt, in order; none for a text prompt.
        question: the last question asked.
        pieces: the drafted answer as `(text, origin)` in order, one entry per token.
        difference: None where both have the same token ids; meaningless for sampled answers.
        is_sampled: whether the answers were drawn, so that they differ by nature.
    """

    title: str
    images: Sequence[Any]
    question: str
    plain: Run
    drafted: Run
    pieces: list[tuple[str, Origin]]
    difference: Difference | None
    is_sampled: bool

    @property
    def speedup(self) -> float:
        """Ratio of the decode-only tokens/s."""
        return rate(self.drafted) / rate(self.plain)


class PrintingStreamer(TextStreamer):
    """Prints text on a rich console as it comes, a word at a time."""

    def __init__(self, tokenizer: Any, console: Console):
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self._console = console

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        self._console.print(safe_lines(text), end="\n" if stream_end else "", highlight=False, soft_wrap=True)


def warm_up(target: PreTrainedModel, drafter: Drafter, inputs: Mapping[str, torch.Tensor]) -> None:
    """Short answers by both, so that neither pays for first-time work under the clock."""
    for arguments in ({}, {"assistant_model": drafter}):
        answer(target, inputs, Contender("warm-up", arguments), _WARM_UP_TOKENS)


def compare(
    target: PreTrainedModel,
    processor: Any,
    drafter: Drafter,
    inputs: Mapping[str, torch.Tensor],
    console: Console,
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
    title: str = "",
    images: Sequence[Any] = (),
    question: str = "",
    options: Mapping[str, Any] | None = None,
) -> Comparison:
    """Stream both answers to `console` with their speeds below, and check the one against the other; `options` are
    further ones of `generate`."""
    runs, both = {}, dict(options or {})
    for name, arguments in ((STOCK, both), ("drafter", {**both, "assistant_model": drafter})):
        console.print(f"[dim]{'without the drafter' if name == STOCK else 'with the drafter'}[/dim]")
        torch.manual_seed(0)
        streamer = PrintingStreamer(processor.tokenizer, console)
        runs[name] = answer(target, inputs, Contender(name, arguments), max_new_tokens, temperature, streamer)
        first = runs[name].time_to_first_token
        speed = f"{rate(runs[name]):.1f} tokens/s, the first after {first:.2f} s"
        console.print(f"[dim]{len(runs[name].tokens)} tokens, {speed}[/dim]\n")
    plain, drafted = runs[STOCK], runs["drafter"]
    is_sampled = temperature > 0
    comparison = Comparison(
        title=title,
        images=images,
        question=question,
        plain=plain,
        drafted=drafted,
        pieces=_pieces(processor.tokenizer, drafted),
        difference=None if is_sampled else find_difference(target, inputs, plain.tokens, drafted.tokens, **both),
        is_sampled=is_sampled,
    )
    console.print(verdict(comparison, processor.tokenizer), soft_wrap=True)
    return comparison


def rate(run: Run) -> float:
    """Decode-only tokens per second; of the whole call where nothing followed the first emission."""
    return run.decode_tokens / run.decode_seconds if run.decode_tokens else len(run.tokens) / run.seconds


def verdict(comparison: Comparison, tokenizer: Any) -> str:
    """One line: speed-up, L, and whether the token ids are the same."""
    speculation = comparison.drafted.speculation
    length = speculation.acceptance_length if speculation and speculation.rounds else None
    parts = [
        f"[bold]{comparison.speedup:.2f}x[/bold] decoding speed",
        "nothing was drafted" if length is None else f"L {length:.2f} tokens per target forward",
        _identity(comparison, tokenizer),
    ]
    return " · ".join(parts)


def _identity(comparison: Comparison, tokenizer: Any) -> str:
    if comparison.is_sampled:
        is_same = comparison.plain.tokens == comparison.drafted.tokens
        return "drawn: the same tokens" if is_same else "drawn: other tokens of the same distribution"
    difference = comparison.difference
    if difference is None:
        return "identical: [green]yes[/green]"
    ours, theirs = (repr(tokenizer.decode([t])) if t is not None else "the end" for t in difference.tokens)
    where = f"first at token {difference.position + 1}, {escape(ours)} or {escape(theirs)}"
    if difference.is_near_tie and difference.chosen:
        return f"identical: [yellow]up to rounding[/yellow] ({where}: the target alone says either, read in pieces)"
    if difference.is_near_tie:
        return (
            f"identical: [yellow]up to a tie[/yellow] ({where}: logits {difference.gap:.3f} apart, "
            f"{difference.epsilon:.3f} is rounding)"
        )
    return f"identical: [red]NO[/red] ({where}: logits {difference.gap:.3f} apart)"


def _origins(run: Run) -> list[Origin]:
    """The prefill gives the first token; then each round gives what was forced, its accepted drafts, and one token of
    the target's own."""
    found = [Origin.TARGET]
    done = run.speculation
    for accepted, forced in zip(done.accepted, done.forced or [0] * done.rounds, strict=True) if done else ():
        found += [Origin.FORCED] * forced + [Origin.DRAFTED] * (accepted - forced) + [Origin.TARGET]
    return found


def _pieces(tokenizer: Any, run: Run) -> list[tuple[str, Origin]]:
    """The text of each token, and where it is from."""
    special = set(tokenizer.all_special_ids)
    pieces, shown = [], ""
    for index, (token, origin) in enumerate(zip(run.tokens, _origins(run), strict=False)):
        if token in special:
            continue
        # Decoding the whole beginning keeps spaces and characters of several tokens right.
        text = tokenizer.decode(run.tokens[: index + 1], skip_special_tokens=True)
        is_last = index == len(run.tokens) - 1
        if text.endswith("\ufffd") and not is_last:  # the last token of a character shows all of it
            text = shown
        pieces.append((text[len(shown) :], origin))
        shown = text
    return pieces
