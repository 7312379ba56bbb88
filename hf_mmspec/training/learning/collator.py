"""From records to the padded batch that a drafter learns from: ids, features, image spans, and which slots carry loss.

Knows the EAGLE shift and nothing about models: embeddings are looked up where the loss is computed.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from ..features.record import Record

IGNORED = -100  # as everywhere in transformers


def collate(
    records: Sequence[Record],
    knows: Callable[[torch.Tensor], torch.Tensor] | None = None,
    device: torch.device | None = None,
) -> dict[str, Any]:
    """B records as one batch, right-padded to N slots (a record of L ids has L - 1).

    Args:
        records: any lengths.
        knows: which tokens the drafter can say (`TargetParts.knows`); others are left out of the loss. None for all.
        device: where the batch is wanted; None for where the states are. It moves as a whole: to a GPU, thousands of
            small copies would take longer than the step.

    Returns:
        `input_ids (B, N)`, `features (B, N, F)`, `attention_mask` bool `(B, N)`, `image_embeds (visual tokens, H)` of
        all samples in order, `visual_spans` a list for each sample, `states (B, N, H)` where features are something
        else, `keys_values (B, N, 2, kv_heads, head_dim)` where records have them, and `labels (B, N)`: the token that
        slot j should predict, j + 2, where that is an answer's and known, else -100.
        `shift_labels` is the same tensor: transformers' Trainer counts it as it stands.

    Raises:
        ValueError: no slot of the batch would carry loss.
    """
    labels = pad([answer_labels(record, knows) for record in records], IGNORED)
    if not (labels != IGNORED).any():
        raise ValueError("no token of these answers would be trained on: the loss mask is all zero")
    batch: dict[str, Any] = {
        "input_ids": pad([record.ids[:-1].to(record.features.device) for record in records], 0),
        "features": pad([record.features for record in records], 0),
        "attention_mask": pad(
            [torch.ones(len(r.ids) - 1, dtype=torch.bool, device=r.features.device) for r in records]
        ),
        "image_embeds": torch.cat([record.image_embeds for record in records]),
        "visual_spans": [record.spans for record in records],
        "labels": labels.to(records[0].features.device),
    }
    if records[0].states is not None:
        batch["states"] = pad([record.states for record in records if record.states is not None], 0)
    if records[0].keys_values is not None:
        batch["keys_values"] = pad([record.keys_values for record in records if record.keys_values is not None], 0)
    if device is not None:
        batch = {name: each.to(device) if isinstance(each, torch.Tensor) else each for name, each in batch.items()}
    return {**batch, "shift_labels": batch["labels"]}


def answer_labels(record: Record, knows: Callable[[torch.Tensor], torch.Tensor] | None = None) -> torch.Tensor:
    """`int64 (L - 1,)`: for slot j token j + 2 if it is an answer's, not its first, and known; else -100.

    The first token comes from the prefill and is never drafted.
    """
    slots = torch.arange(len(record.ids) - 1)
    following = torch.nn.functional.pad(record.ids[2:].cpu(), (0, 1))
    supervised = (slots >= record.prompt_length - 1) & (slots < len(record.ids) - 2)
    if knows is not None:
        supervised &= knows(following)
    return torch.where(supervised, following, IGNORED)


def supervised_at(labels: torch.Tensor, step: int) -> torch.Tensor:
    """`bool (B, N)`: slots with loss at unrolled pass `step`. Its drafting started `step` slots earlier, inside the
    answer, and said only what the drafter can say."""
    loss = labels != IGNORED
    mask = loss.clone()
    for back in range(1, step + 1):
        mask[:, back:] &= loss[:, :-back]
        mask[:, :back] = False
    return mask


def first_slots(labels: torch.Tensor) -> torch.Tensor:
    """`int64 (B,)`: the first slot with loss; drafting never starts before it."""
    return (labels != IGNORED).int().argmax(1)


def pad(rows: Sequence[torch.Tensor], value: float = 0) -> torch.Tensor:
    """`(B, longest, ...)`, right-padded."""
    return pad_sequence(list(rows), batch_first=True, padding_value=value)
