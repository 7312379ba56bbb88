"""Whole fields of an object that is still being written.

Passes tokens from `generate` to whoever reads; knows no grammar and no model.
"""

from collections.abc import Iterator
from queue import SimpleQueue

import torch
from pydantic_core import from_json
from transformers import StoppingCriteria
from transformers.generation.streamers import BaseStreamer


class FieldStream(BaseStreamer):
    """A streamer of one answer's token ids, without the prompt's; iterate over it in another thread."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[int | None] = SimpleQueue()
        self._prompt_has_come = False

    def put(self, value: torch.Tensor) -> None:
        if self._prompt_has_come:
            for token in value.flatten().tolist():
                self._queue.put(token)
        self._prompt_has_come = True

    def end(self) -> None:
        self._queue.put(None)

    def __iter__(self) -> Iterator[int]:
        return iter(self._queue.get, None)


class StopWhenAbandoned(StoppingCriteria):
    """Ends an answer that nobody waits for.

    Attributes:
        abandoned: set by the reader.
    """

    def __init__(self):
        self.abandoned = False

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs) -> torch.Tensor:
        return torch.full((input_ids.shape[0],), self.abandoned, dtype=torch.bool, device=input_ids.device)


def finished_fields(text: str) -> dict[str, str]:
    """The fields of the beginning of a JSON object that have come to their end, in order."""
    return from_json(text, allow_partial=True) if text.startswith("{") else {}
