"""Several ways of drafting on the same prompts, taking turns: L, times, and whether the answers are the same.

Its border: it trains nothing and knows no way by name. Greedy decoding.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

import torch

from hf_mmspec.data import Conversation, model_inputs
from hf_mmspec.generation.statistics import Speculation
from hf_mmspec.modeling import Drafter

from .acceptance import lengths


@torch.inference_mode()
def measure(
    model: Any,
    processor: Any,
    ways: Mapping[str, Callable[[], Drafter]],
    conversations: Sequence[Conversation],
    max_new_tokens: int = 200,
    repetitions: int = 1,
    **budget: Any,
) -> dict[str, dict[str, float]]:
    """By way: L over all prompts and by task, milliseconds of drafting per round, tokens per second of decoding (the
    prefill left out), and the share of answers that are those of the first way (1 in float32; in half precision ties
    may differ).

    Args:
        ways: what drafts, in the target's dtype and on its device; asked before each answer.
        repetitions: of each answer; of its times the medians count.
        budget: `draft_depth`, `draft_top_k`, `draft_total_tokens`, `draft_mode`.
    """
    runs: dict[str, list[list[Speculation]]] = {way: [] for way in ways}
    answers: dict[str, list[list[int]]] = {way: [] for way in ways}
    for number, conversation in enumerate(conversations):
        inputs = model_inputs(processor, [conversation]).to(model.device, model.dtype)
        found = defaultdict(list)
        for repetition in range(-1 if number == 0 else 0, repetitions):  # the very first is a warm-up
            for way in list(ways)[:: -1 if repetition % 2 else 1]:
                out = model.generate(
                    **inputs,
                    assistant_model=ways[way](),
                    do_sample=False,
                    max_new_tokens=max_new_tokens,
                    return_dict_in_generate=True,
                    **budget,
                )
                if repetition >= 0:
                    found[way].append((out.speculation, out.sequences[0].tolist()))
        for way in ways:
            runs[way].append([speculation for speculation, _ in found[way]])
            answers[way].append(found[way][0][1])
    tasks, first = [each.task for each in conversations], next(iter(answers.values()))
    return {way: {**summary(runs[way], tasks), "same_answers": _share(answers[way], first)} for way in ways}


def summary(runs: Sequence[Sequence[Speculation]], tasks: Sequence[str]) -> dict[str, float]:
    """L, milliseconds of drafting per round and tokens per second.

    Args:
        runs: for each prompt its repetitions.
        tasks: of each prompt.
    """
    tokens, rounds = Counter[str](), Counter[str]()
    drafting = decoding = 0.0
    for repetitions, task in zip(runs, tasks, strict=True):
        tokens[task] += sum(repetitions[0].accepted) + repetitions[0].rounds
        rounds[task] += repetitions[0].rounds
        drafting += median(each.seconds["draft"] for each in repetitions)
        decoding += median(sum(each.seconds.values()) - each.seconds["prefill"] for each in repetitions)
    return {
        **lengths(tokens, rounds),
        "draft_milliseconds": 1000 * drafting / max(rounds.total(), 1),
        "tokens_per_second": tokens.total() / decoding,
    }


def _share(answers: Sequence[list[int]], expected: Sequence[list[int]]) -> float:
    return sum(one == other for one, other in zip(answers, expected, strict=True)) / max(len(answers), 1)
