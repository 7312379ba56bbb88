"""Ways to answer the same prompt with the same target, and the clock that times each of them alike.

Runs one call of `generate` at a time; compares nothing.
"""

import time
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.generation.streamers import BaseStreamer

from hf_mmspec.generation import Speculation
from hf_mmspec.modeling import Drafter

from .budgets import parse_budget

STOCK = "stock"  # `generate` as it is: the baseline of every ratio
LOOP = "loop"  # our loop without a drafter
PROMPT_LOOKUP = "prompt_lookup"
BASELINES = (STOCK, LOOP, PROMPT_LOOKUP)
_LOOKUP_TOKENS = 10


@dataclass(frozen=True)
class Contender:
    """A name and the arguments that `generate` gets for it."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


def contenders_with(drafters: Mapping[str, Drafter], budgets: Sequence[str] = (), batch: int = 1) -> list[Contender]:
    """The baseline first, then the two others that do not draft with a drafter, then the drafters under their names.

    Args:
        drafters: by name, at least one: our loop without a drafter is entered with the first of them.
        budgets: draft budgets that each drafter is measured with besides its usual one, see `parse_budget`. One that
            is given twice counts once, since runs are kept by name.
        batch: prompts per call; prompt lookup takes part where it is 1, which is all that it can do.
    """
    asked = {f" {text}": parse_budget(text) for text in budgets}

    def entered(drafter: Drafter, budget: Mapping[str, Any]) -> dict[str, Any]:
        """What is learnt about acceptance is kept by drafter: a copy, of the same weights, learns for itself."""
        return {"assistant_model": copy(drafter) if budget else drafter, **budget}

    lookup = [Contender(PROMPT_LOOKUP, {"prompt_lookup_num_tokens": _LOOKUP_TOKENS})]
    first = next(iter(drafters.values()))
    return [
        Contender(STOCK),
        Contender(LOOP, {"assistant_model": first, "draft_depth": 0}),
        *(lookup if batch == 1 else []),
        *(
            Contender(f"{name}{suffix}", entered(drafter, budget))
            for name, drafter in drafters.items()
            for suffix, budget in {"": {}, **asked}.items()
        ),
    ]


class Clock(BaseStreamer):
    """A streamer that stamps each emission, and hands everything on to another streamer where one is given."""

    def __init__(self, inner: BaseStreamer | None = None):
        self.stamps: list[tuple[float, int]] = []
        self._inner = inner
        self._prompt_is_next = True

    def put(self, value: torch.Tensor) -> None:
        if not self._prompt_is_next:
            self.stamps.append((time.perf_counter(), value.numel()))
        self._prompt_is_next = False
        if self._inner is not None:
            self._inner.put(value)

    def end(self) -> None:
        if self._inner is not None:
            self._inner.end()


@dataclass
class Run:
    """One call of `generate`: a prompt, or a batch of them, answered.

    Args:
        rows: the new token ids of each prompt, those after it, without padding.
        seconds: of the whole `generate` call: image encoding, prefill and decoding.
        decode_seconds, decode_tokens: from the first emission to the last, and the tokens of all rows emitted after
            the first emission. Image encoding and prefill lie before it. A step of a batch is emitted when all of its
            rows have it.
        emissions: how often the streamer was called. Stock decoding emits once per target forward, so this counts
            forwards for contenders without `speculation`.
        speculation: statistics of our loop; None for contenders that do not use it.
        time_to_first_token: seconds from the call to the first emission: image encoding and prefill.
    """

    rows: list[list[int]]
    seconds: float
    decode_seconds: float
    decode_tokens: int
    emissions: int = 0
    speculation: Speculation | None = None
    time_to_first_token: float = float("nan")

    @property
    def tokens(self) -> list[int]:
        """The new token ids of the only prompt."""
        (row,) = self.rows
        return row

    @property
    def new_tokens(self) -> int:
        """Of all rows."""
        return sum(map(len, self.rows))


def answer(
    target: PreTrainedModel,
    inputs: Mapping[str, torch.Tensor],
    contender: Contender,
    max_new_tokens: int,
    temperature: float = 0.0,
    streamer: BaseStreamer | None = None,
) -> Run:
    """Let `contender` answer the prompts `inputs` (any batch size, padded on the left).

    Args:
        temperature: 0 for greedy decoding.
        streamer: gets the tokens as they come.
    """
    clock = Clock(streamer)
    start = time.perf_counter()
    output = target.generate(
        **inputs,
        **sampling_arguments(temperature),
        **contender.arguments,
        max_new_tokens=max_new_tokens,
        streamer=clock,
        return_dict_in_generate=True,
    )
    seconds = time.perf_counter() - start
    first = clock.stamps[0]
    rows = _without_padding(output.sequences[:, inputs["input_ids"].shape[1] :].tolist(), target)
    return Run(
        rows=rows,
        seconds=seconds,
        decode_seconds=clock.stamps[-1][0] - first[0],
        decode_tokens=sum(map(len, rows)) - first[1],
        emissions=len(clock.stamps),
        speculation=getattr(output, "speculation", None),
        time_to_first_token=first[0] - start,
    )


def _without_padding(rows: list[list[int]], target: PreTrainedModel) -> list[list[int]]:
    """Each row as far as its first end token, which counts. A row that is alone is never padded."""
    if len(rows) == 1:
        return rows
    ends = target.generation_config.eos_token_id
    return [_up_to(row, set(ends if isinstance(ends, list) else [ends])) for row in rows]


def _up_to(row: list[int], ends: set[int]) -> list[int]:
    stop = next((index for index, token in enumerate(row) if token in ends), len(row))
    return row[: stop + 1]


def sampling_arguments(temperature: float) -> dict[str, Any]:
    """What `generate` takes for a temperature; 0 is greedy decoding."""
    return {"do_sample": True, "temperature": temperature} if temperature > 0 else {"do_sample": False}
