"""From records to padded batches: embeddings, features, image spans, and which slots carry loss.

Knows the EAGLE shift and nothing about models beyond the target's embeddings.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch.nn.utils.rnn import pad_sequence

from .records import Record


@dataclass
class Batch:
    """B records, right-padded to N rows (a record of L ids has L - 1).

    Args:
        inputs_embeds: `(B, N, H)`. features: `(B, N, F)`.
        attention_mask: `bool (B, N)`, False at padding.
        loss_mask: `bool (B, N)`: slot j carries loss if it predicts an answer token, that is token j + 2.
        next_tokens: `int64 (B, N)`: the token that slot j should predict.
        spans: image spans of each record.
    """

    inputs_embeds: torch.Tensor
    features: torch.Tensor
    attention_mask: torch.Tensor
    loss_mask: torch.Tensor
    next_tokens: torch.Tensor
    spans: list[list[tuple[int, int]]]

    @property
    def first_slots(self) -> torch.Tensor:
        """`int64 (B,)`: the first slot with loss; drafting never starts before it."""
        return self.loss_mask.int().argmax(1)

    def loss_mask_at(self, step: int) -> torch.Tensor:
        """Slots with loss at unrolled step `step`: its drafting started `step` slots earlier, inside the answer."""
        mask = self.loss_mask.clone()
        for back in range(1, step + 1):
            mask[:, back:] &= self.loss_mask[:, :-back]
            mask[:, :back] = False
        return mask


def collate(
    records: list[Record], embed: Callable[[torch.Tensor], torch.Tensor], dtype: torch.dtype = torch.float32
) -> Batch:
    """Build a batch. `embed` is the target's embedding; visual rows get their recorded embeddings.

    Raises:
        ValueError: no slot of the batch would carry loss (answers of fewer than two tokens).
    """
    embeds, features, loss, following = [], [], [], []
    for record in records:
        rows = len(record.ids) - 1
        row_embeds = embed(record.ids[:-1]).to(dtype)
        at = 0
        for start, stop in record.spans:
            row_embeds[start:stop] = record.image_embeds[at : at + stop - start].to(dtype)
            at += stop - start
        embeds.append(row_embeds)
        features.append(record.features.to(dtype))
        slots = torch.arange(rows)
        loss.append((slots >= record.prompt_length - 1) & (slots < rows - 1))
        following.append(torch.nn.functional.pad(record.ids[2:], (0, 1)))
    loss_mask = pad_sequence(loss, batch_first=True)
    if not loss_mask.any():
        raise ValueError("no token of these answers would be trained on: the loss mask is all zero")
    return Batch(
        inputs_embeds=pad_sequence(embeds, batch_first=True),
        features=pad_sequence(features, batch_first=True),
        attention_mask=pad_sequence([torch.ones(len(row), dtype=torch.bool) for row in loss], batch_first=True),
        loss_mask=loss_mask,
        next_tokens=pad_sequence(following, batch_first=True),
        spans=[record.spans for record in records],
    )


def shuffled(records: list[Record], batch_size: int, seed: int) -> Iterator[list[Record]]:
    """One epoch of batches in random order, records of similar length together so that little is padding."""
    rng = random.Random(seed)
    order = sorted(
        records, key=lambda record: len(record.ids) - sum(b - a for a, b in record.spans) + rng.random() * 40
    )
    batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    rng.shuffle(batches)
    yield from batches
