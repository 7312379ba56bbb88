"""What a distillation will take, before it begins: time from a short probe, room from the sizes of things.

Upper bounds: answers may end early.
"""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from hf_mmspec.data import Conversation, model_inputs
from hf_mmspec.generation.visual_spans import visual_token_ids
from hf_mmspec.modeling.binding import unwrap

from ..features.stored import StatesFormat
from .distil import Distillation
from .halves import in_halves
from .rows import picture_column

_PROBE_TOKENS = 8


@dataclass(frozen=True)
class Estimate:
    """Upper bounds.

    Args:
        shards: that are missing.
        tokens: of prompts and answers.
        size: bytes on disk.
        seconds: of this process alone; None where nothing has to be decoded.
        bytes_per_token: of hidden states, 0 for none.
    """

    shards: int
    tokens: int
    size: int
    seconds: float | None
    bytes_per_token: int

    def __str__(self) -> str:
        kept = (
            f"{self.bytes_per_token} bytes a token for hidden states, 4 for ids"
            if self.bytes_per_token
            else "ids only"
        )
        took = "nothing to decode" if self.seconds is None else f"at most {duration(self.seconds)} in one process"
        return (
            f"{self.shards} shards to make: {took}, at most {self.tokens:,} tokens, {self.size / 1e9:.3f} GB ({kept})"
        )


def estimate(distillation: Distillation) -> Estimate:
    """Look at the first missing shard, and let the target decode a few tokens of it."""
    missing = distillation.missing()
    kept = distillation.store.manifest.get("features")
    states = StatesFormat(**kept) if kept else None
    per_token = states.bytes_per_token if states else 0
    first = list(distillation.askable(missing[0], Counter())) if missing else []
    if not first:
        return Estimate(len(missing), 0, 0, None, per_token)
    inputs = model_inputs(distillation.processor, first)
    prompt = int(inputs["attention_mask"].sum()) // len(first)
    prompts = len(missing) * distillation.shard_size
    tokens = prompts * (prompt + distillation.how.max_new_tokens)
    pictures = sum(len(picture_column(p)["bytes"] or b"") for c in first for p in c.pictures) // len(first)
    embeds = states.bytes_per_embedding * _visual_tokens(distillation, inputs) // len(first) if states else 0
    size = tokens * (4 + per_token) + prompts * (pictures + embeds + 500)
    return Estimate(len(missing), tokens, size, _seconds(distillation, first, len(missing)), per_token)


def _visual_tokens(distillation: Distillation, inputs: Any) -> int:
    ids = sorted(visual_token_ids(unwrap(distillation.model).config).values())
    return int(torch.isin(inputs["input_ids"], torch.tensor(ids)).sum())


@torch.inference_mode()
def _seconds(distillation: Distillation, first: list[Conversation], shards: int) -> float | None:
    if all(conversation.answer_ids for conversation in first):
        return None
    model, processor = distillation.model, distillation.processor
    took = []
    for tokens in (1, 1 + _PROBE_TOKENS):  # the first call pays for warming up, and so bounds from above
        start = time.perf_counter()
        in_halves(partial(_answer, model, processor, tokens), first)
        took.append(time.perf_counter() - start)
    step = max(took[1] - took[0], 0.1 * took[1]) / _PROBE_TOKENS
    return shards * (took[0] + step * distillation.how.max_new_tokens)


def _answer(model: Any, processor: Any, tokens: int, some: Sequence[Conversation], _: int) -> list[Any]:
    inputs = model_inputs(processor, some).to(model.device, model.dtype)
    return list(model.generate(**inputs, do_sample=False, min_new_tokens=tokens, max_new_tokens=tokens))


def duration(seconds: float) -> str:
    """For people."""
    minutes, hours = seconds / 60, seconds / 3600
    return f"{hours:.1f} h" if hours >= 2 else f"{minutes:.0f} min" if minutes >= 2 else f"{seconds:.0f} s"
