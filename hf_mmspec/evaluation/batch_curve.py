"""Tokens per second by batch size, without and with a drafter: `python -m hf_mmspec.evaluation.batch_curve`.

Both answer the same batches of the embedded target's prompts, taking turns; every answer is checked. Knows nothing of
how a batch is drafted for.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path
from statistics import median
from typing import Any

import torch
from transformers import PreTrainedModel

from hf_mmspec.data import Conversation, Source, model_inputs, open_source
from hf_mmspec.generation import Speculation
from hf_mmspec.whole_file import write_json

from .contenders import STOCK, Contender, answer
from .identity import find_difference
from .loading import default_drafter, load_drafter, load_target
from .machine import machine_facts
from .metrics import decode_rate
from .prompts import to_target

SIZES = (1, 2, 4, 8, 16, 32)
_WARM_UP_TOKENS = 8


@dataclass(frozen=True)
class Point:
    """One batch size.

    Args:
        stock_tokens_per_second, tokens_per_second: new tokens of all rows, padding not counted, per second of decoding
            (from the first step to the last), the median of the repetitions.
        decode_speedup: their ratio.
        end_to_end_speedup: ratio of the median times of whole calls, image encoding and prefill included.
        acceptance_length: tokens per row and target forward.
        drafted_per_round: drafts that were checked in each row and round; 0 where the draft budget chose not to draft.
        failures: rows whose answers differ at no tie of the target.
    """

    batch: int
    stock_tokens_per_second: float
    tokens_per_second: float
    decode_speedup: float
    end_to_end_speedup: float
    acceptance_length: float
    drafted_per_round: float
    failures: int


def measure_point(
    target: PreTrainedModel,
    processor: Any,
    conversations: Sequence[Conversation],
    contender: Contender,
    max_new_tokens: int,
    repetitions: int,
) -> Point:
    """Let stock `generate` and `contender` answer `conversations` as one batch, greedily.

    What a first call pays for (kernels, memory, the measurement behind the automatic budget) is outside of the clock.
    """
    inputs = to_target(model_inputs(processor, conversations), target)
    pair = (Contender(STOCK), contender)
    for each in pair:
        answer(target, inputs, each, _WARM_UP_TOKENS)
    runs: list[list[Any]] = [[], []]
    for repetition in range(repetitions):
        for index in (0, 1) if repetition % 2 == 0 else (1, 0):
            runs[index].append(answer(target, inputs, pair[index], max_new_tokens))
    rates = [median(decode_rate([run]) for run in each) for each in runs]
    seconds = [median(run.seconds for run in each) for each in runs]
    speculation = runs[1][0].speculation or Speculation()
    drafted = speculation.drafted
    return Point(
        batch=len(conversations),
        stock_tokens_per_second=rates[0],
        tokens_per_second=rates[1],
        decode_speedup=rates[1] / rates[0],
        end_to_end_speedup=seconds[0] / seconds[1],
        acceptance_length=speculation.acceptance_length,
        drafted_per_round=sum(drafted) / len(drafted) if drafted else 0.0,
        failures=_failures(target, processor, conversations, runs[0][0].rows, runs[1][0].rows),
    )


def _failures(target, processor, conversations, expected, actual) -> int:
    """How many rows part where the target, on that row alone, is sure of its token."""
    count = 0
    for conversation, theirs, ours in zip_longest(conversations, expected, actual):
        alone = to_target(model_inputs(processor, [conversation]), target)
        difference = find_difference(target, alone, theirs, ours)
        count += difference is not None and not difference.is_near_tie
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    parser.add_argument("--batch", type=int, nargs="+", default=list(SIZES), help="batch sizes")
    parser.add_argument("--max-new-tokens", type=int, default=160)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", default="auto", help="as `mmspec bench` takes it")
    parser.add_argument("--data", nargs="+", default=["embedded"], help="sources of prompts, whose rows take turns")
    arguments = parser.parse_args()
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)  # before minutes of measuring
    torch.set_num_threads(arguments.threads)
    target, processor = load_target(None, arguments.dtype)
    contender = Contender("drafter", {"assistant_model": load_drafter(default_drafter(), target)})
    sources = [open_source(Source(name, split="test", limit=max(arguments.batch))) for name in arguments.data]
    conversations = [each for in_turn in zip(*sources, strict=True) for each in in_turn]
    points = []
    for size in arguments.batch:
        rows = conversations[:size]
        points.append(
            measure_point(target, processor, rows, contender, arguments.max_new_tokens, arguments.repetitions)
        )
        print(json.dumps(asdict(points[-1])), flush=True)
    machine = machine_facts(target.dtype, target.device)
    report = {"machine": machine, "data": arguments.data, "points": [asdict(point) for point in points]}
    if arguments.json:
        write_json(arguments.json, report)


if __name__ == "__main__":
    main()
