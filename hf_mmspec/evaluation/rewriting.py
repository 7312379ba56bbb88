"""How much a drafter speeds up prompt rewriting: `python -m hf_mmspec.evaluation.rewriting`.

Contenders take turns under one grammar: `generate`, prompt lookup, forced runs alone, a drafter that is not told of
the grammar, and one that is. Runs and collects; `rewriting_parts.py` splits answers and times by part.
"""

import argparse
import json
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch
from pydantic import ValidationError
from transformers import LogitsProcessor, LogitsProcessorList

from hf_mmspec.demo import samples
from hf_mmspec.rewriting.grammar import GrammarProcessor
from hf_mmspec.rewriting.rewriter import PromptRewriter
from hf_mmspec.whole_file import write_json

from .contenders import STOCK, Clock, Contender, Run, answer
from .loading import default_drafter, load_drafter, load_target
from .machine import machine_facts
from .metrics import acceptance, decode_rate, end_to_end_rate
from .rewriting_parts import REASONING, PartTotals, parts_of, totals

CONTENDERS = LOOKUP, FORCED, UNTOLD, TOLD = "prompt_lookup", "forced runs", "drafter, not told", "drafter"
_SLICES: dict[str, Callable[["Answered"], bool]] = {
    "all": lambda each: True,
    "with picture": lambda each: each.pictures > 0,
    "without": lambda each: each.pictures == 0,
}


class Untold(LogitsProcessor):
    """The grammar as a plain processor, of which drafters learn nothing, with the time that it takes."""

    def __init__(self, inner: GrammarProcessor):
        self.inner, self.seconds = inner, 0.0

    def _timed(self, function: Callable, *arguments: Any) -> Any:
        start = time.perf_counter()
        result = function(*arguments)
        self.seconds += time.perf_counter() - start
        return result

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return self._timed(self.inner, input_ids, scores)


class Told(Untold):
    """The grammar as a `DraftConstraint`, with the time that it takes."""

    def allowed_tokens(self, ids: Sequence[int]) -> torch.Tensor:
        return self._timed(self.inner.allowed_tokens, ids)

    def forced_tokens(self, ids: Sequence[int]) -> Sequence[int]:
        return self._timed(self.inner.forced_tokens, ids)


@dataclass
class Answered:
    """One answer of one contender: the run, the number of pictures, seconds in the grammar, tokens and time by part,
    tokens of its reasoning before the one that ends it, whether the object is valid."""

    run: Run
    pictures: int
    grammar_seconds: float
    parts: dict[str, PartTotals]
    reasoning_tokens: int
    is_valid: bool


@dataclass
class Measured:
    """All answers: `answers[contender][repetition][wish]`."""

    answers: dict[str, list[list[Answered]]] = field(default_factory=lambda: defaultdict(list))


def contenders(rewriter: PromptRewriter) -> list[tuple[Contender, type[Untold]]]:
    """Ways to answer, the baseline first, and how each of them gets the grammar."""
    found: list[tuple[Contender, type[Untold]]] = [
        (Contender(STOCK), Untold),
        (Contender(LOOKUP, {"prompt_lookup_num_tokens": 10}), Untold),
    ]
    if rewriter.drafter is not None:
        drafter = {"assistant_model": rewriter.drafter}
        found += [
            (Contender(FORCED, {**drafter, "draft_depth": 0}), Told),
            (Contender(UNTOLD, drafter), Untold),
            (Contender(TOLD, drafter), Told),
        ]
    return found


def measure(
    rewriter: PromptRewriter,
    requests: Sequence[dict[str, Any]],
    repetitions: int,
    progress: Callable[[str], None] = lambda text: None,
    beside: Sequence[str] = CONTENDERS,
) -> Measured:
    """Every contender answers every request, taking turns.

    Args:
        requests: samples of the task "rewrite" (`hf_mmspec.demo.samples`).
        beside: contenders beside `generate`.
    """
    ways = [each for each in contenders(rewriter) if each[0].name in (STOCK, *beside)]
    measured = Measured()
    prepared = [(_pictures(each), rewriter.inputs(_wish(each), _pictures(each))) for each in requests]
    for way, grammar in ways:  # what is done once is paid for outside of the clock
        _answer(rewriter, prepared[0][1], 0, way, grammar)
    for repetition in range(repetitions):
        rows: dict[str, list[Answered]] = defaultdict(list)
        for index, (pictures, inputs) in enumerate(prepared):
            progress(f"repetition {repetition + 1} of {repetitions}, wish {index + 1} of {len(prepared)}")
            shift = index % len(ways)
            for way, grammar in (*ways[shift:], *ways[:shift]):
                rows[way.name].append(_answer(rewriter, inputs, len(pictures), way, grammar))
        for name, row in rows.items():
            measured.answers[name].append(row)
    return measured


def _answer(
    rewriter: PromptRewriter, inputs: dict[str, torch.Tensor], pictures: int, way: Contender, grammar: type[Untold]
) -> Answered:
    processor, clock = grammar(rewriter.processor_for(inputs)), Clock()
    arguments = {
        **way.arguments,
        "logits_processor": LogitsProcessorList([processor]),
        "eos_token_id": rewriter.grammar.vocabulary.eos_token_id,
    }
    run = answer(
        rewriter.model, inputs, Contender(way.name, arguments), rewriter.grammar.limits.answer, streamer=clock
    )
    try:
        rewriter.read(run.tokens)
        is_valid = True
    except ValidationError:
        is_valid = False
    parts = parts_of(run.tokens, rewriter.grammar.vocabulary)
    by_part, reasoning = totals(parts, run, clock.stamps), max(parts.count(REASONING) - 1, 0)
    return Answered(run, pictures, processor.seconds, by_part, reasoning, is_valid)


def _wish(sample: dict[str, Any]) -> str:
    return "".join(part["text"] for part in sample["messages"][-1]["content"] if part["type"] == "text")


def _pictures(sample: dict[str, Any]) -> list[Any]:
    several = sample.get("images")
    return list(several) if several else [sample["image"]] if sample.get("image") is not None else []


def report(measured: Measured) -> list[dict[str, Any]]:
    """Rows: one for each contender and slice of the wishes. Rates are over totals, speed-ups medians over
    repetitions."""
    return [
        {"contender": name, "wishes": label, **_row(measured, name, wanted)}
        for name in measured.answers
        for label, wanted in _SLICES.items()
        if any(map(wanted, measured.answers[name][0]))
    ]


def _row(measured: Measured, name: str, wanted: Callable[[Answered], bool]) -> dict[str, Any]:
    ours = [list(filter(wanted, row)) for row in measured.answers[name]]
    stock = [list(filter(wanted, row)) for row in measured.answers[STOCK]]
    runs = [[each.run for each in row] for row in ours]
    stock_runs = [[each.run for each in row] for row in stock]
    pairs = list(zip(runs, stock_runs, strict=True))
    tokens = sum(len(run.tokens) for row in runs for run in row)
    forced = [sum(run.speculation.forced) for row in runs for run in row if run.speculation is not None]
    return {
        "n": len(ours[0]),
        "valid": sum(each.is_valid for each in ours[0]),
        "identical": sum(a.tokens == b.tokens for a, b in zip(runs[0], stock_runs[0], strict=True)),
        "mean_tokens": tokens / sum(map(len, runs)),
        "longest_reasoning": max(lengths := [each.reasoning_tokens for each in ours[0]]),
        "so_long": lengths.count(max(lengths)),
        "acceptance_length": acceptance([run for row in runs for run in row])["acceptance_length"],
        "decode_speedup": median(decode_rate(a) / decode_rate(b) for a, b in pairs),
        "end_to_end_speedup": median(end_to_end_rate(a) / end_to_end_rate(b) for a, b in pairs),
        "tokens_per_second": median(map(decode_rate, runs)),
        "forced_share_of_tokens": sum(forced) / tokens if forced else 0.0,
        "grammar_ms_per_token": 1e3 * sum(each.grammar_seconds for row in ours for each in row) / tokens,
        "parts": _parts(ours, stock),
    }


def _parts(ours: list[list[Answered]], stock: list[list[Answered]]) -> dict[str, dict[str, float]]:
    """L, milliseconds per token and speed-up of names and choices, reasoning and prompt."""
    found = {}
    for part in ours[0][0].parts:
        mine = PartTotals.sum(each.parts[part] for row in ours for each in row)
        theirs = PartTotals.sum(each.parts[part] for row in stock for each in row)
        if mine.tokens and mine.seconds and theirs.tokens:
            found[part] = {
                "tokens": mine.tokens,
                "acceptance_length": mine.tokens / mine.forwards,
                "ms_per_token": 1e3 * mine.seconds / mine.tokens,
                "decode_speedup": (theirs.seconds / theirs.tokens) / (mine.seconds / mine.tokens),
            }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="folder or repository; the embedded default without")
    parser.add_argument("--drafter", help="its drafter; the embedded default's without --model")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--split", default="test", choices=("val", "test"))
    parser.add_argument("--samples", type=int, default=30, help="held-out wishes")
    parser.add_argument("--start", type=int, default=0, help="wishes to leave out before")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument(
        "--contender", nargs="+", action="extend", choices=CONTENDERS, help="beside generate; all without"
    )
    parser.add_argument("--quantize", help="form of the target's weights, as `mmspec bench` takes it")
    parser.add_argument("--thinking", type=int, default=128)
    parser.add_argument("--max-new-tokens", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    asked = parser.parse_args()
    if asked.json:
        asked.json.parent.mkdir(parents=True, exist_ok=True)  # before minutes of measuring
    torch.set_num_threads(asked.threads)
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # a warning at every 8-bit layer takes time
    target, processor = load_target(asked.model, asked.dtype, asked.quantize)
    name = asked.drafter or (default_drafter() if asked.model is None else None)
    drafter = None if name is None else load_drafter(name, target)
    rewriter = PromptRewriter(target, processor, drafter, asked.thinking, asked.max_new_tokens)
    requests = list(samples(asked.split, task="rewrite", n=asked.samples, start=asked.start))
    beside = asked.contender or CONTENDERS
    measured = measure(rewriter, requests, asked.repetitions, lambda text: print(text, flush=True), beside=beside)
    rows = report(measured)
    for row in rows:
        print(json.dumps(row))
    if asked.json:
        settings = {name: value for name, value in vars(asked).items() if name != "json"}
        document = {"machine": machine_facts(target.dtype, target.device), "settings": settings, "rows": rows}
        write_json(asked.json, document)


if __name__ == "__main__":
    main()
