"""What one request owns while it drafts: the prompt as the target saw it, borrowed parts, cache, last row.

Nothing of a request lives on a module, so calls cannot leak into each other; knows no drafter family.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from .drafted_rows import DraftedRows
from .packed_weights import head_device, readable_weight


@dataclass
class TargetPrompt:
    """The target's prefill, as a drafter needs it. Batch size 1, L expanded positions (each visual token is one).

    Args:
        input_ids: `int64 (1, L)` expanded ids, or None where the caller gave `inputs_embeds`.
        inputs_embeds: `(1, L, H)` merged embeddings as they enter the text decoder, in the target's dtype.
        features: `(1, L, F)` target hidden states that the drafter asked for (`Drafter.feature_layers`).
        visual_spans: half-open `(start, stop)` for each image, or frame of a video, in increasing order; adjacent
            ones stay separate.
        start_position: position of the first row, above 0 where the target continues from a filled cache.
    """

    input_ids: torch.Tensor | None
    inputs_embeds: torch.Tensor
    features: torch.Tensor
    visual_spans: list[tuple[int, int]] = field(default_factory=list)
    start_position: int = 0

    @property
    def visual_mask(self) -> torch.Tensor:
        """`bool (1, L)`: True at visual tokens."""
        mask = torch.zeros(self.inputs_embeds.shape[:2], dtype=torch.bool, device=self.inputs_embeds.device)
        for start, stop in self.visual_spans:
            mask[:, start:stop] = True
        return mask


@dataclass(frozen=True)
class BorrowedParts:
    """Modules of the target that a drafter uses without owning them (see `Drafter.bind`).

    Args:
        embed_tokens: ids -> embeddings, on the target's device and in its dtype.
        lm_head: hidden states -> logits over the target's (possibly padded) vocabulary.
        vocab_size: number of real tokens; ids from there on are padding and never proposed.
        head_size: rows of the head, padding included: the width of the target's logits.
        head_dtype: what the head takes; None where it is its weight's.
    """

    embed_tokens: Callable[[torch.Tensor], torch.Tensor]
    lm_head: Callable[[torch.Tensor], torch.Tensor]
    vocab_size: int
    head_size: int
    head_dtype: torch.dtype | None = None

    def head_input(self, states: torch.Tensor) -> torch.Tensor:
        """Hidden states `(..., H)` as the head takes them, on its device and in its dtype."""
        device = head_device(self.lm_head)
        dtype = self.head_dtype
        if dtype is None:
            weight = readable_weight(self.lm_head)
            dtype = states.dtype if weight is None else weight.dtype
        return states.to(device=states.device if device is None else device, dtype=dtype)


class DrafterCache:
    """Keys and values of the drafter's layers, `(1, kv_heads, rows, head_dim)`, written in place.

    Rows up to `stable` belong to known tokens. Rows after them are scratch: nodes of the tree that is being grown,
    dropped by `drop_scratch`. Room doubles when it runs out, so a step never copies what is there already.
    """

    def __init__(self, num_layers: int, capacity: int = 256):
        self.stable = 0
        self._used = [0] * num_layers
        self._capacity = max(capacity, 1)
        self._keys: list[torch.Tensor | None] = [None] * num_layers
        self._values: list[torch.Tensor | None] = [None] * num_layers

    def update(self, keys: torch.Tensor, values: torch.Tensor, layer_idx: int, **_: object):
        """Append rows; returns views of all rows of the layer. The signature that transformers' attention calls."""
        start, stop = self._used[layer_idx], self._used[layer_idx] + keys.shape[2]
        all_keys = self._keys[layer_idx] = self._with_room(self._keys[layer_idx], keys, start, stop)
        all_values = self._values[layer_idx] = self._with_room(self._values[layer_idx], values, start, stop)
        all_keys[:, :, start:stop] = keys
        all_values[:, :, start:stop] = values
        self._used[layer_idx] = stop
        return all_keys[:, :, :stop], all_values[:, :, :stop]

    def _with_room(self, store: torch.Tensor | None, rows: torch.Tensor, used: int, needed: int) -> torch.Tensor:
        if store is not None and store.shape[2] >= needed:
            return store
        capacity = max(self._capacity, needed) if store is None else max(2 * store.shape[2], needed)
        grown = rows.new_empty(*rows.shape[:2], capacity, rows.shape[3])
        if store is not None:
            grown[:, :, :used] = store[:, :, :used]
        return grown

    def commit(self) -> None:
        """Everything written so far is stable from now on."""
        self.stable = self._used[0]

    def drop_scratch(self) -> None:
        """Forget the rows after the stable part."""
        self._used = [self.stable] * len(self._used)

    def keep(self, rows: Sequence[int]) -> None:
        """Make these scratch rows, numbered in the order in which they were written, the next stable ones, in place,
        and forget the others. Rows that are dropped can be kept as long as nothing was written after them."""
        if rows:
            stop = self.stable + len(rows)
            for stored in (*self._keys, *self._values):
                if stored is not None:
                    chosen = torch.tensor([self.stable + row for row in rows], device=stored.device)
                    stored[:, :, self.stable : stop] = stored[:, :, chosen]
            self.stable = stop
        self.drop_scratch()

    def crop(self, rows: int) -> None:
        """Keep the first `rows` rows only; they are as they were, even after an interrupted forward."""
        self.stable = rows
        self.drop_scratch()

    def rows(self, layer_idx: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Stable keys (after RoPE) and values of a layer, each `(1, kv_heads, stable, head_dim)`."""
        keys, values = self._keys[layer_idx], self._values[layer_idx]
        if keys is None or values is None:
            raise ValueError("the drafter's cache is empty: call `prefill` first")
        return keys[:, :, : self.stable], values[:, :, : self.stable]


class SeenImage(NamedTuple):
    """An image that a drafter has read: the position behind its last visual token, and its global feature
    `(1, 1, H)`, None for families without one."""

    stop: int
    feature: torch.Tensor | None


@dataclass
class DraftState:
    """All that a request's drafting depends on; made by `Drafter.prefill`, advanced by `Drafter.extend`.

    Args:
        borrowed: the target's parts.
        cache: the drafter's keys and values. It may hold fewer rows than positions have passed (compressed images).
        next_position: position of the next row, = number of tokens whose feature is known.
        last_token: `int64 (1,)`, the last known token, root of the next tree.
        last_hidden: `(1, H)`, the drafter's output for it, from which level 1 is read.
        last_input: `(1, 1, input width)`, what entered the first layer for it.
        last_feature: `(1, H)`, the target's feature that `last_token` was emitted from, at the drafter's width.
        image_feature: `(1, 1, H)` global feature of the last image (ViSpec), None for families without one.
        has_images: whether the prompt had any.
        drafted: which rows the last proposal wrote, where a drafter keeps those of accepted tokens; else None.
        slots: position of each row of the cache, increasing: row of position j joins its feature with token j + 1.
        images: what was seen, in order; `image_feature` is the last one's.
        first_position: position that the first row was read at.
    """

    borrowed: BorrowedParts
    cache: DrafterCache
    next_position: int
    last_token: torch.Tensor
    last_hidden: torch.Tensor
    last_input: torch.Tensor
    last_feature: torch.Tensor
    image_feature: torch.Tensor | None = None
    has_images: bool = False
    drafted: DraftedRows | None = None
    slots: list[int] = field(default_factory=list)
    images: list[SeenImage] = field(default_factory=list)
    first_position: int = 0

    def advance(self, rows: int) -> None:
        """So many rows follow in the cache."""
        self.next_position += rows
        self.slots.extend(range(self.slots[-1] + 1, self.slots[-1] + 1 + rows))

    def crop(self, length: int) -> None:
        """Forget the rows of positions from `length` on, so that `Drafter.resume` can go on there.

        Args:
            length: outside images, where text follows: no image has visual tokens on both sides of it.
        """
        rows = bisect_left(self.slots, length)
        self.cache.crop(rows)
        del self.slots[rows:]
        self.images = [image for image in self.images if image.stop <= length]
        self.image_feature = self.images[-1].feature if self.images else None
        self.has_images = bool(self.images)
