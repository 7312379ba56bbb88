"""What keeping accepted rows is worth: one drafter, both ways, on the same prompts, taking turns.

Its border: it trains nothing and knows no recipe. Greedy decoding.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from statistics import median
from typing import Any

import torch

from hf_mmspec.data import Conversation, model_inputs
from hf_mmspec.generation.statistics import Speculation
from hf_mmspec.modeling import Drafter
from hf_mmspec.modeling.configuration_autoregressive import ACCEPTED_ROWS

from .acceptance import lengths


@torch.inference_mode()
def measure_modes(
    model: Any,
    processor: Any,
    drafter: Drafter,
    conversations: Sequence[Conversation],
    max_new_tokens: int = 200,
    repetitions: int = 3,
    **budget: Any,
) -> dict[str, dict[str, float]]:
    """By way of drafting (`AutoregressiveConfig.accepted_rows`): L over all prompts and by task, milliseconds of
    drafting per round, tokens per second of decoding (the prefill left out), and the share of answers that are those
    of the first way (1 in float32; in half precision ties may differ).

    Args:
        drafter: in the target's dtype, on its device; its `accepted_rows` is left as the last way.
        repetitions: of each answer; of its times the medians count.
        budget: `draft_depth`, `draft_top_k`, `draft_total_tokens`, `draft_mode`.
    """
    runs: dict[str, list[list[Speculation]]] = {mode: [] for mode in ACCEPTED_ROWS}
    answers: dict[str, list[list[int]]] = {mode: [] for mode in ACCEPTED_ROWS}
    for number, conversation in enumerate(conversations):
        inputs = model_inputs(processor, [conversation]).to(model.device, model.dtype)
        found = defaultdict(list)
        for repetition in range(-1 if number == 0 else 0, repetitions):  # the very first is a warm-up
            for mode in ACCEPTED_ROWS[:: -1 if repetition % 2 else 1]:
                drafter.config.accepted_rows = mode
                out = model.generate(
                    **inputs,
                    assistant_model=drafter,
                    do_sample=False,
                    max_new_tokens=max_new_tokens,
                    return_dict_in_generate=True,
                    **budget,
                )
                if repetition >= 0:
                    found[mode].append((out.speculation, out.sequences[0].tolist()))
        for mode in ACCEPTED_ROWS:
            runs[mode].append([speculation for speculation, _ in found[mode]])
            answers[mode].append(found[mode][0][1])
    tasks, first = [each.task for each in conversations], answers[ACCEPTED_ROWS[0]]
    return {mode: {**summary(runs[mode], tasks), "same_answers": _share(answers[mode], first)} for mode in runs}


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
