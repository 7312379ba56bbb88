"""The target answers a batch of prompts in its own words, with stock `generate`.

Keeps token ids and nothing else; hidden states are read later (`features/reading.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from hf_mmspec.data import Conversation, model_inputs
from hf_mmspec.modeling.binding import unwrap

from ..features.reading import Answered


@dataclass(frozen=True)
class Answering:
    """How answers are made: at `temperature` 0 greedily, else drawn; never longer than `max_new_tokens`."""

    temperature: float = 0.0
    max_new_tokens: int = 256

    @property
    def sampling(self) -> dict[str, Any]:
        """Arguments of `generate`."""
        if self.temperature > 0:
            return {"do_sample": True, "temperature": self.temperature, "top_k": 0, "top_p": 1.0}
        return {"do_sample": False}


@torch.inference_mode()
def answer_batch(
    model: Any, processor: Any, conversations: Sequence[Conversation], how: Answering, seed: int = 0
) -> list[Answered]:
    """Answer a left-padded batch; answers that are known already are taken as they are.

    Raises:
        PictureError: a picture cannot be opened.
        ValueError: the processor refuses a prompt.
    """
    if all(conversation.answer_ids for conversation in conversations):
        return [with_known_answer(processor, conversation) for conversation in conversations]
    inputs = model_inputs(processor, conversations, "left").to(model.device, model.dtype)
    torch.manual_seed(seed)
    ids = model.generate(**inputs, **how.sampling, max_new_tokens=how.max_new_tokens)
    width = inputs["input_ids"].shape[1]
    padding = (inputs["attention_mask"] == 0).sum(1).tolist()
    ends = end_tokens(model)
    return [
        Answered(conversation, row[skip : answer_end(row, width, ends)].tolist(), width - skip)
        for conversation, row, skip in zip(conversations, ids, padding, strict=True)
    ]


def with_known_answer(processor: Any, conversation: Conversation) -> Answered:
    """Only the prompt has to be turned into tokens."""
    prompt = model_inputs(processor, [conversation])["input_ids"][0].tolist()
    return Answered(conversation, [*prompt, *(conversation.answer_ids or ())], len(prompt))


def answer_end(ids: torch.Tensor, prompt_end: int, ends: set[int]) -> int:
    """Where a row's answer ends: behind its first end token, or at the row's end."""
    for position, token in enumerate(ids[prompt_end:].tolist(), start=prompt_end):
        if token in ends:
            return position + 1
    return len(ids)


def end_tokens(model: Any) -> set[int]:
    """The ids that end an answer of this model."""
    eos = unwrap(model).generation_config.eos_token_id
    return set(eos if isinstance(eos, list) else [eos]) - {None}
