"""The target's key/value cache for tree verification: write n tree nodes, keep k of them, in place, row by row.

Knows nothing about trees, masks or drafters: it moves columns. Converts from and to transformers' DynamicCache
and StaticCache.
"""

from collections.abc import Sequence

import torch
from transformers import Cache
from transformers.cache_utils import CacheLayerMixin, DynamicLayer, DynamicSlidingWindowLayer, StaticLayer

from hf_mmspec.modeling.row_plan import pad_rows
from hf_mmspec.modeling.row_writes import columns_after, move, with_room, write

from .static_rows import length_of, store_rows, stored_rows


class TreeCacheLayer(CacheLayerMixin):
    """One decoder layer's keys and values in a buffer `(batch, heads, capacity, head_dim)` that is written in place.

    The buffer holds every position, also for sliding-window layers: the window is the attention mask's business, so
    that rejected nodes can always be dropped again. Rows of the batch may have different lengths: `length` is the
    longest one's, and `columns` says where each row's next states go.
    """

    is_sliding = False
    is_croppable = True

    def __init__(self, capacity: int):
        super().__init__()
        self.capacity = capacity
        self.length = 0
        self.columns: torch.Tensor | None = None

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        self.keys = with_room(key_states, 0, self.capacity)
        self.values = with_room(value_states, 0, self.capacity)
        self.is_initialized = True

    def update(self, key_states, value_states, *args, **kwargs) -> tuple[torch.Tensor, torch.Tensor]:
        """Write states `(batch, heads, n, head_dim)`; returns views of all columns so far."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start, stop = self.length, self.length + key_states.shape[-2]
        if stop > self.capacity:
            self.grow(stop)
        write(self.keys, key_states, start, self.columns)
        write(self.values, value_states, start, self.columns)
        self.length = stop
        return self.keys[:, :, :stop], self.values[:, :, :stop]

    def grow(self, needed: int) -> None:
        """Double the buffer: rare, since a request's first guess of its length is generous."""
        capacity = max(needed, 2 * self.capacity)
        # Filled before they are ours, and the capacity last: an interrupt in between loses nothing.
        self.keys, self.values = (with_room(each, self.length, capacity) for each in (self.keys, self.values))
        self.capacity = capacity

    def move(self, source: torch.Tensor, target: torch.Tensor) -> None:
        """Copy the columns `source (batch, k)` of each row to its columns `target`."""
        source, target = source.to(self.keys.device), target.to(self.keys.device)
        move(self.keys, source, target)
        move(self.values, source, target)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        return self.length

    def get_max_length(self) -> int:
        return -1

    def crop(self, tokens_to_remove: int) -> None:
        self.length -= abs(tokens_to_remove)


class TreeCache(Cache):
    """A preallocated cache for one request that supports "write n tree nodes, keep these k of them" in place."""

    layer_class = TreeCacheLayer

    def __init__(self, num_layers: int, capacity: int):
        super().__init__(layers=[self.layer_class(capacity) for _ in range(num_layers)])
        self._ids: list[int] = []  # of the rows that are left, where some have ended
        self._ended: dict[int, list[tuple[torch.Tensor, torch.Tensor]]] = {}

    @classmethod
    def from_dynamic(cls, cache: Cache, num_layers: int, capacity: int) -> "TreeCache":
        """A copy of `cache` (which stays as it is until `copy_to`) with room for `capacity` columns."""
        tree_cache = cls(num_layers, capacity)
        for mine, theirs in zip(tree_cache.layers, cache.layers, strict=False):
            is_static = isinstance(theirs, StaticLayer)
            if theirs.keys is None:  # nothing yet, or never: such layers read another one's
                continue
            length = length_of(theirs) if is_static else theirs.get_seq_length()
            if length == 0:
                continue
            keys, values = stored_rows(theirs) if is_static else (theirs.keys, theirs.values)
            # A sliding layer has forgotten what is before its window: those places stay empty, the mask hides them.
            mine.length = length - keys.shape[-2]
            mine.capacity = max(mine.capacity, length)
            mine.update(keys, values)
        return tree_cache

    def copy_to(self, cache: Cache) -> None:
        """Hand the columns over to `cache`, layer by layer, as if `cache` had been there all along."""
        used = 1 + max((index for index, layer in enumerate(self.layers) if layer.is_initialized), default=-1)
        while len(cache.layers) < used:
            cache.layers.append(DynamicLayer())
        for mine, theirs in zip(self.layers, cache.layers, strict=False):  # the last ones may read another one's rows
            if not mine.is_initialized:
                continue
            if isinstance(theirs, StaticLayer):
                store_rows(theirs, mine.keys[:, :, : mine.length], mine.values[:, :, : mine.length])
                del mine.keys, mine.values
                continue
            window = theirs.sliding_window if isinstance(theirs, DynamicSlidingWindowLayer) else mine.length + 1
            first = max(mine.length - window + 1, 0)
            if not theirs.is_initialized:
                theirs.lazy_initialization(mine.keys, mine.values)
            theirs.keys = mine.keys[:, :, first : mine.length].clone()
            theirs.values = mine.values[:, :, first : mine.length].clone()
            if isinstance(theirs, DynamicSlidingWindowLayer):
                theirs.cumulative_length = mine.length
            del mine.keys, mine.values  # so that a long conversation is never in memory twice

    def go_on_after(self, lengths: Sequence[int], count: int = 0) -> None:
        """The next forward writes `count` columns in each row b after its first `lengths[b]`, over what is there."""
        columns = columns_after(lengths, count, torch.device("cpu")) if count else None
        for layer in self._with_states():
            layer.length, layer.columns = max(lengths), None if columns is None else columns.to(layer.keys.device)

    def keep(self, lengths: Sequence[int], paths: Sequence[Sequence[int]]) -> None:
        """Of what was written after the first `lengths[b]` columns of row b, keep the columns `paths[b]` (increasing,
        counted from there); what is not kept will be written over."""
        longest = max(map(len, paths))
        after = torch.arange(longest) + torch.tensor(lengths)[:, None]
        # a shorter path goes on with columns that stay where they are
        source = torch.tensor([[*path, *range(len(path), longest)] for path in paths]) + torch.tensor(lengths)[:, None]
        if not torch.equal(source, after):
            for layer in self._with_states():
                layer.move(source, after)
        self.go_on_after([length + len(path) for length, path in zip(lengths, paths, strict=True)])

    def select(self, rows: Sequence[int], lengths: Sequence[int], remember: bool) -> None:
        """Go on with the given rows of the batch only.

        Args:
            lengths: columns of each row.
            remember: whether the others are put aside, for `restore`.
        """
        self._ids = self._ids or list(range(len(lengths)))
        for index, length in enumerate(lengths):
            if remember and index not in rows:
                layers = self._with_states()
                own = [(layer.keys[index, :, :length], layer.values[index, :, :length]) for layer in layers]
                self._ended[self._ids[index]] = [(keys.clone(), values.clone()) for keys, values in own]
        self._ids = [self._ids[row] for row in rows]
        for layer in self._with_states():
            layer.keys, layer.values = layer.keys[list(rows)], layer.values[list(rows)]

    def restore(self, lengths: Sequence[int], most: int) -> None:
        """All rows again, in their first order: `lengths` columns of those that are left and all of those put aside,
        but not more than `most`. What a row does not have is zeros."""
        ids = self._ids or list(range(len(lengths)))
        for number, layer in enumerate(self._with_states()):
            rows = {row: layers[number] for row, layers in self._ended.items()}
            for index, (row, length) in enumerate(zip(ids, lengths, strict=True)):
                rows[row] = layer.keys[index, :, :length], layer.values[index, :, :length]
            keys, values = ([rows[row][part].transpose(0, 1)[:most] for row in sorted(rows)] for part in (0, 1))
            layer.keys, layer.values = pad_rows(keys).transpose(1, 2), pad_rows(values).transpose(1, 2)
            layer.length = layer.capacity = layer.keys.shape[2]
        self._ended.clear()

    def truncate(self, length: int) -> None:
        """Forget all columns from `length` on, in every row."""
        for layer in self._with_states():
            layer.length, layer.columns = length, None

    def _with_states(self) -> list[TreeCacheLayer]:
        """The layers that hold states: those that share another layer's never get any."""
        return [layer for layer in self.layers if layer.is_initialized]
