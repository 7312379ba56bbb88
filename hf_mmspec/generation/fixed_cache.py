"""A tree cache for compiled forwards: fixed shapes, fixed addresses, and a tensor that says where rows are written.

Knows nothing about trees or compilers; which columns count is the attention mask's business.
"""

import torch

from .cache import TreeCache, TreeCacheLayer

_SMALLEST = 256


class FixedTreeCacheLayer(TreeCacheLayer):
    """Until `start` is set it is its parent. From then on a forward reads no number of Python, which a compiler would
    take for a constant: it writes from `start` on, and sees the whole buffer, in which unwritten rows are zeros."""

    def __init__(self, capacity: int):
        super().__init__(capacity)
        self.start: torch.Tensor | None = None

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        super().lazy_initialization(key_states, value_states)
        for rows in (self.keys, self.values):
            torch._dynamo.mark_static_address(rows)  # CUDA graphs write into it, instead of into a copy

    def update(self, key_states, value_states, *args, **kwargs) -> tuple[torch.Tensor, torch.Tensor]:
        """Write rows `(batch, heads, n, head_dim)` at `start`; returns all `capacity` rows."""
        if self.start is None:
            return super().update(key_states, value_states, *args, **kwargs)
        rows = self.start + torch.arange(key_states.shape[-2], device=self.start.device)
        self.keys.index_copy_(2, rows, key_states)
        self.values.index_copy_(2, rows, value_states)
        return self.keys, self.values

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return super().get_mask_sizes(query_length) if self.start is None else (self.capacity, 0)

    def get_seq_length(self):
        """Rows so far: a tensor where `start` is set, as in transformers' static layers."""
        return super().get_seq_length() if self.start is None else self.start


class FixedTreeCache(TreeCache):
    """A `TreeCache` whose buffers have powers of two of rows, so that few shapes occur."""

    layer_class = FixedTreeCacheLayer

    def __init__(self, num_layers: int, capacity: int):
        super().__init__(num_layers, _power_of_two(capacity))
        self._starts: dict[torch.device, torch.Tensor] = {}

    @property
    def capacity(self) -> int:
        """Rows of each layer's buffer."""
        return self.layers[0].capacity

    def open_at(self, start: int, count: int) -> None:
        """Let the next forward write its `count` rows from row `start` on; makes room for them."""
        for layer in self._with_states():
            if start + count > layer.capacity:
                layer.grow(_power_of_two(start + count))
            device = layer.keys.device
            if device not in self._starts:
                self._starts[device] = torch.zeros((), dtype=torch.long, device=device)
                torch._dynamo.mark_static_address(self._starts[device])
            layer.start = self._starts[device]
        for tensor in self._starts.values():
            tensor.fill_(start)


def _power_of_two(rows: int) -> int:
    return max(_SMALLEST, 1 << (rows - 1).bit_length())
