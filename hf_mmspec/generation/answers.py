"""The answers of a batch's rows, put together as `generate` returns them: padded, step by step, streamed in order.

Each row grows by itself (`answer.py`), faster or slower than the others. Knows nothing about trees or drafters.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from .answer import Answer
from .row_processors import for_each_row


class Answers:
    """B answers. A row that has stopped is frozen and padded. Without an EOS criterion `generate` pads nothing and
    goes on in every row until the last one stops: so do we, and cut what a fast row has beyond that.

    Args:
        input_ids: `(B, L)`, the prompts, padded on the left.
        streamer: gets the tokens of a step, `(B,)`, as soon as every row has one.
    """

    def __init__(
        self,
        input_ids: torch.Tensor,
        logits_processor: LogitsProcessorList,
        stopping_criteria: StoppingCriteriaList,
        generation_config: GenerationConfig,
        streamer: BaseStreamer | None,
    ):
        batch = input_ids.shape[0]
        self._pads = any(hasattr(criterion, "eos_token_id") for criterion in stopping_criteria)
        pad_token = generation_config._pad_token_tensor
        self._pad_token = 0 if pad_token is None else int(pad_token)
        self._streamer = streamer
        self.prompts = input_ids
        self._streamed = input_ids.shape[1]
        processors, criteria = for_each_row(logits_processor, batch), for_each_row(stopping_criteria, batch)
        self.rows = [
            Answer(
                input_ids[row : row + 1],
                processors[row],
                criteria[row],
                generation_config,
                streamer if batch == 1 else None,
                goes_on=batch > 1 and not self._pads,
            )
            for row in range(batch)
        ]

    @property
    def tokens_left(self) -> int:
        """How many more tokens the length limit allows to the row that has most left."""
        return max(row.tokens_left for row in self.rows)

    def unfinished(self) -> list[int]:
        """Rows that need further tokens."""
        length = self._length()
        return [
            index
            for index, row in enumerate(self.rows)
            if not row.finished and (length is None or row.ids.shape[1] < length)
        ]

    def _length(self) -> int | None:
        """Of the answers when all have stopped; None before."""
        stops = [row.stopped_at for row in self.rows]
        return None if None in stops else max(stop for stop in stops if stop is not None)

    def stream(self) -> None:
        """Hand over the steps that all rows have taken by now."""
        if self._streamer is None or len(self.rows) == 1:
            return
        ends = [row.ids.shape[1] for row in self.rows if not row.finished or not self._pads]
        length = self._length()
        stop = min([*ends, *([] if length is None else [length])])
        for step in range(self._streamed, stop):
            self._streamer.put(self._column(step).cpu())
        self._streamed = max(stop, self._streamed)

    @contextmanager
    def ending(self) -> Iterator[None]:
        """Tells the streamer at the end that no token follows, after an exception too: or else whoever reads it in
        another thread waits for ever."""
        try:
            yield
        finally:
            if self._streamer is not None:
                self._streamer.end()

    def _column(self, step: int) -> torch.Tensor:
        pad = torch.full((1,), self._pad_token, device=self.rows[0].ids.device)
        return torch.cat([row.ids[:, step] if step < row.ids.shape[1] else pad for row in self.rows])

    @property
    def new_tokens(self) -> int:
        """How many tokens every answer has, padding included."""
        length = self.rows[0].ids.shape[1] if len(self.rows) == 1 else self._length()
        return (length or max(row.ids.shape[1] for row in self.rows)) - self.prompts.shape[1]

    def ids(self) -> torch.Tensor:
        """`(B, length)`, prompts included."""
        if len(self.rows) == 1:
            return self.rows[0].ids
        first = self.prompts.shape[1]
        columns = [self._column(step)[:, None] for step in range(first, first + self.new_tokens)]
        return torch.cat([self.prompts, *columns], dim=1)

    def steps(self, name: str) -> tuple | None:
        """`scores`, `logits`, `hidden_states` or `attentions` of all rows, an entry for each step as `generate` gives
        it. A row that has stopped has the logits of a certain padding token, and zeros for states."""
        by_row: list[Any] = [getattr(row, name) for row in self.rows]
        if len(by_row) == 1 or by_row[0] is None:
            return by_row[0]
        rows_axis = -3 if name == "hidden_states" else 0  # see `states_of_row`
        return tuple(
            self._step([row[step] if step < len(row) else None for row in by_row], rows_axis)
            for step in range(self.new_tokens)
        )

    def _step(self, entries: Sequence[Any], rows_axis: int) -> Any:
        known = next(entry for entry in entries if entry is not None)
        if isinstance(known, torch.Tensor):
            ended = torch.full_like(known, -torch.inf)
            ended[:, self._pad_token] = 0
            return torch.cat([ended if entry is None else entry for entry in entries])
        return tuple(
            None
            if layer is None
            else torch.cat(
                [torch.zeros_like(layer) if entry is None else entry[index] for entry in entries], rows_axis
            )
            for index, layer in enumerate(known)
        )
