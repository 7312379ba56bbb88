"""The target's key/value cache for tree verification: write n tree nodes, keep k of them, in place.

Knows nothing about trees, masks or drafters: it moves rows. Converts from and to transformers' DynamicCache and
StaticCache.
"""

import torch
from transformers import Cache
from transformers.cache_utils import CacheLayerMixin, DynamicLayer, DynamicSlidingWindowLayer, StaticLayer

from .static_rows import length_of, store_rows, stored_rows


class TreeCacheLayer(CacheLayerMixin):
    """One decoder layer's keys and values in a buffer `(batch, heads, capacity, head_dim)` that is written in place.

    The buffer holds every position, also for sliding-window layers: the window is the attention mask's business, so
    that rejected rows can always be dropped again.
    """

    is_sliding = False
    is_croppable = True

    def __init__(self, capacity: int):
        super().__init__()
        self.capacity = capacity
        self.length = 0

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        self.keys = key_states.new_empty((*key_states.shape[:2], self.capacity, key_states.shape[-1]))
        self.values = value_states.new_empty((*value_states.shape[:2], self.capacity, value_states.shape[-1]))
        self.is_initialized = True

    def update(self, key_states, value_states, *args, **kwargs) -> tuple[torch.Tensor, torch.Tensor]:
        """Append rows `(batch, heads, n, head_dim)`; returns views of all rows so far."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start, stop = self.length, self.length + key_states.shape[-2]
        if stop > self.capacity:
            self.grow(stop)
        self.keys[:, :, start:stop] = key_states
        self.values[:, :, start:stop] = value_states
        self.length = stop
        return self.keys[:, :, :stop], self.values[:, :, :stop]

    def grow(self, needed: int) -> None:
        """Double the buffer: rare, since a request's first guess of its length is generous."""
        capacity = max(needed, 2 * self.capacity)
        # Filled before they are ours, and the capacity last: an interrupt in between loses no row.
        self.keys, self.values = self._larger(self.keys, capacity), self._larger(self.values, capacity)
        self.capacity = capacity

    def _larger(self, rows: torch.Tensor, capacity: int) -> torch.Tensor:
        larger = rows.new_empty((*rows.shape[:2], capacity, rows.shape[-1]))
        larger[:, :, : self.length] = rows[:, :, : self.length]
        return larger

    def keep(self, start: int, rows: torch.Tensor) -> None:
        """Of the rows after `start`, keep `rows` `(k,)` (increasing, relative to `start`) and drop the others."""
        stop = start + rows.shape[0]
        self.keys[:, :, start:stop] = self.keys[:, :, start + rows]
        self.values[:, :, start:stop] = self.values[:, :, start + rows]
        self.length = stop

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

    @classmethod
    def from_dynamic(cls, cache: Cache, num_layers: int, capacity: int) -> "TreeCache":
        """A copy of `cache` (which stays as it is until `copy_to`) with room for `capacity` rows."""
        tree_cache = cls(num_layers, capacity)
        for mine, theirs in zip(tree_cache.layers, cache.layers, strict=False):
            is_static = isinstance(theirs, StaticLayer)
            length = length_of(theirs) if is_static else theirs.get_seq_length()
            if theirs.keys is None or length == 0:
                continue
            keys, values = stored_rows(theirs) if is_static else (theirs.keys, theirs.values)
            # A sliding layer has forgotten the rows before its window: their places stay empty, the mask hides them.
            forgotten = length - keys.shape[-2]
            mine.capacity = max(mine.capacity, length)
            mine.lazy_initialization(keys, values)
            mine.keys[:, :, :forgotten] = 0
            mine.values[:, :, :forgotten] = 0
            mine.length = forgotten
            mine.update(keys, values)
        return tree_cache

    def copy_to(self, cache: Cache) -> None:
        """Hand the rows over to `cache`, layer by layer, as if `cache` had been there all along."""
        while len(cache.layers) < len(self.layers):
            cache.layers.append(DynamicLayer())
        for mine, theirs in zip(self.layers, cache.layers, strict=True):
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

    def keep(self, start: int, rows: torch.Tensor) -> None:
        """Of the rows written after position `start`, keep `rows` `(k,)` and drop the others, in every layer."""
        for layer in self._with_rows():
            layer.keep(start, rows.to(layer.keys.device))

    def truncate(self, length: int) -> None:
        """Forget all rows from `length` on."""
        for layer in self._with_rows():
            layer.length = length

    def _with_rows(self) -> list[TreeCacheLayer]:
        """The layers that hold rows: those that share another layer's never get any."""
        return [layer for layer in self.layers if layer.is_initialized]
