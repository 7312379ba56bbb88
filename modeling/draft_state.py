"""What one request owns while it drafts: the prompt as the target saw it, borrowed parts, cache, last row.

Nothing of a request lives on a module, so calls cannot leak into each other; knows no drafter family.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from .drafted_rows import DraftedRows
from .packed_weights import head_device, readable_weight
from .row_writes import columns_after, move, with_room, write


@dataclass
class TargetPrompt:
    """The target's prefill of one row, as a drafter needs it. L expanded positions (each visual token is one).

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
    """Keys and values of the drafter's layers, `(B, kv_heads, columns, head_dim)`, written in place.

    Columns up to `lengths[b]` of row b belong to known tokens. Columns from the longest row's length on are scratch:
    nodes of the trees that are being grown, dropped by `drop_scratch`. What a shorter row has between the two is for
    the mask to hide. Room doubles when it runs out, so a step never copies what is there already.
    """

    def __init__(self, num_layers: int, capacity: int = 256):
        self.lengths = [0]
        self._used = [0] * num_layers
        self._capacity = max(capacity, 1)
        self._keys: list[torch.Tensor | None] = [None] * num_layers
        self._values: list[torch.Tensor | None] = [None] * num_layers
        self._columns: torch.Tensor | None = None

    @property
    def stable(self) -> int:
        """Columns that are not scratch: the length of the longest row."""
        return max(self.lengths)

    def update(self, keys: torch.Tensor, values: torch.Tensor, layer_idx: int, **_: object):
        """Append columns; returns views of all columns of the layer. The signature that transformers' attention
        calls."""
        start, stop = self._used[layer_idx], self._used[layer_idx] + keys.shape[2]
        self._used[layer_idx] = stop
        written = []
        for stores, states in ((self._keys, keys), (self._values, values)):
            store = stores[layer_idx] = self._with_room(stores[layer_idx], states, start, stop)
            write(store, states, start, self._columns)
            written.append(store[:, :, :stop])
        return tuple(written)

    def _with_room(self, store: torch.Tensor | None, states: torch.Tensor, used: int, needed: int) -> torch.Tensor:
        if store is None:
            capacity = max(self._capacity, needed)
            return states.new_zeros(*states.shape[:2], capacity, states.shape[3])
        return store if store.shape[2] >= needed else with_room(store, used, max(2 * store.shape[2], needed))

    @contextmanager
    def appending(self, counts: Sequence[int], device: torch.device) -> Iterator[None]:
        """What is written inside the `with` block goes right after the known tokens of each row: `max(counts)`
        columns, of which the first `counts[b]` are known afterwards in row b."""
        self.drop_scratch()
        self._columns = columns_after(self.lengths, max(counts), device)
        try:
            yield
        finally:
            self._columns = None
        self.lengths = [length + count for length, count in zip(self.lengths, counts, strict=True)]

    def commit(self) -> None:
        """Everything written so far is known from now on, in every row."""
        self.lengths = [self._used[0]] * len(self.lengths)

    def drop_scratch(self) -> None:
        """Forget the scratch columns."""
        self._used = [self.stable] * len(self._used)

    def keep(self, rows: Sequence[Sequence[int]], first: int) -> None:
        """Make scratch columns the next known ones of each row b of the batch, in place, and forget the others: the
        columns `first + i` for i in `rows[b]`, which is increasing. Columns that were dropped can be kept as long as
        nothing was written after them.

        Args:
            first: where scratch began when they were written.
        """
        if longest := max(map(len, rows)):
            lengths = torch.tensor(self.lengths)[:, None]
            after = lengths + torch.arange(longest)
            # a row that keeps fewer goes on with columns that stay where they are
            source = after.clone()
            for row, kept in enumerate(rows):
                source[row, : len(kept)] = first + torch.tensor(kept, dtype=torch.long)
            for stored in (*self._keys, *self._values):
                if stored is not None:
                    move(stored, source.to(stored.device), after.to(stored.device))
            self.lengths = [length + len(kept) for length, kept in zip(self.lengths, rows, strict=True)]
        self.drop_scratch()

    def crop(self, columns: int) -> None:
        """Keep the first columns only, of a cache with one row; they are as they were, even after an interrupted
        forward."""
        self.lengths = [columns]
        self.drop_scratch()

    def rows(self, layer_idx: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys (after RoPE) and values of a layer without scratch, each `(B, kv_heads, stable, head_dim)`."""
        keys, values = self._keys[layer_idx], self._values[layer_idx]
        if keys is None or values is None:
            raise ValueError("the drafter's cache is empty: call `prefill` first")
        return keys[:, :, : self.stable], values[:, :, : self.stable]

    @classmethod
    def join(cls, caches: Sequence["DrafterCache"]) -> "DrafterCache":
        """One cache whose rows are those of `caches`."""
        layers, longest = len(caches[0]._used), max(each.stable for each in caches)
        joined = cls(layers, longest + 256)
        joined.lengths = [length for each in caches for length in each.lengths]

        def side_by_side(stores: Sequence[torch.Tensor]) -> torch.Tensor:
            one = stores[0]
            out = one.new_zeros(len(joined.lengths), one.shape[1], joined._capacity, one.shape[3])
            row = 0
            for store in stores:
                out[row : row + store.shape[0], :, : store.shape[2]] = store
                row += store.shape[0]
            return out

        for layer in range(layers):
            keys, values = zip(*(each.rows(layer) for each in caches), strict=True)
            joined._keys[layer], joined._values[layer] = side_by_side(keys), side_by_side(values)
        joined.drop_scratch()
        return joined

    def select(self, rows: Sequence[int]) -> None:
        """Keep only the given rows of the batch."""
        self.lengths = [self.lengths[row] for row in rows]
        for stores in (self._keys, self._values):
            stores[:] = [None if store is None else store[list(rows)] for store in stores]
        self.drop_scratch()


class SeenImage(NamedTuple):
    """An image that a drafter has read: the position behind its last visual token, and its global feature
    `(1, 1, H)`, None for families without one."""

    stop: int
    feature: torch.Tensor | None


@dataclass
class DraftState:
    """All that the drafting of a request's B rows depends on; made by `Drafter.prefill` for one row, joined for
    several, advanced by `Drafter.extend`.

    Args:
        borrowed: the target's parts.
        cache: the drafter's keys and values. It may hold fewer rows than positions have passed (compressed images).
        next_positions: for each row the position of its next token, = number of tokens whose feature is known.
        last_token: `int64 (B,)`, the last known token, root of the next tree.
        last_hidden: `(B, H)`, the drafter's output for it, from which level 1 is read.
        last_input: `(B, 1, input width)`, what entered the first layer for it.
        last_feature: `(B, H)`, the target's feature that `last_token` was emitted from, at the drafter's width.
        image_feature: `(B, 1, H)` global feature of the last image (ViSpec), zeros for a row without images; None for
            families without one, and where no row has images.
        has_images: whether the prompt had any; `bool (B,)` for several rows.
        drafted: which columns the last proposal wrote, where a drafter keeps those of accepted tokens; else None.
        slots: position of each column of the cache, increasing: the one of position j joins its feature with token
            j + 1. A joined state has none, as nothing is ever cropped in a batch.
        images: what was seen, in order; `image_feature` is the last one's. A joined state has none.
        first_position: position that the first column was read at.
    """

    borrowed: BorrowedParts
    cache: DrafterCache
    next_positions: list[int]
    last_token: torch.Tensor
    last_hidden: torch.Tensor
    last_input: torch.Tensor
    last_feature: torch.Tensor
    image_feature: torch.Tensor | None = None
    has_images: bool | torch.Tensor = False
    drafted: DraftedRows | None = None
    slots: list[int] = field(default_factory=list)
    images: list[SeenImage] = field(default_factory=list)
    first_position: int = 0

    def advance(self, counts: Sequence[int]) -> None:
        """So many columns follow in each row of the cache."""
        self.next_positions = [at + count for at, count in zip(self.next_positions, counts, strict=True)]
        if self.slots:
            self.slots.extend(range(self.slots[-1] + 1, self.slots[-1] + 1 + counts[0]))

    def crop(self, length: int) -> None:
        """Forget the columns of positions from `length` on, so that `Drafter.resume` can go on there.

        Args:
            length: outside images, where text follows: no image has visual tokens on both sides of it.
        """
        columns = bisect_left(self.slots, length)
        self.cache.crop(columns)
        del self.slots[columns:]
        self.images = [image for image in self.images if image.stop <= length]
        self.image_feature = self.images[-1].feature if self.images else None
        self.has_images = bool(self.images)

    @property
    def next_position(self) -> int:
        """Position of the next token; of the furthest row where there are several."""
        return max(self.next_positions)

    @classmethod
    def join(cls, states: Sequence["DraftState"]) -> "DraftState":
        """One state for the rows of `states`, which the caller gives up."""
        images = [state.image_feature for state in states]
        known = next((image for image in images if image is not None), None)
        has_images = [torch.as_tensor(state.has_images).reshape(-1) for state in states]
        return cls(
            states[0].borrowed,
            DrafterCache.join([state.cache for state in states]),
            [position for state in states for position in state.next_positions],
            torch.cat([state.last_token for state in states]),
            torch.cat([state.last_hidden for state in states]),
            torch.cat([state.last_input for state in states]),
            torch.cat([state.last_feature for state in states]),
            None if known is None else torch.cat([torch.zeros_like(known) if x is None else x for x in images]),
            torch.cat(has_images),
        )

    def select(self, rows: Sequence[int]) -> None:
        """Keep only the given rows of a joined state."""
        kept = list(rows)
        self.cache.select(kept)
        self.next_positions = [self.next_positions[row] for row in kept]
        self.last_token, self.last_hidden = self.last_token[kept], self.last_hidden[kept]
        self.last_input, self.last_feature = self.last_input[kept], self.last_feature[kept]
        self.image_feature = None if self.image_feature is None else self.image_feature[kept]
        self.has_images = torch.as_tensor(self.has_images).reshape(-1)[kept]
        if self.drafted is not None:
            self.drafted.select(kept)
