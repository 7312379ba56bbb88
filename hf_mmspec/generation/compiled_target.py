"""A request's view of a target that runs compiled: the prefill uncompiled, verification in a few fixed shapes.

Knows neither compilers nor families, and has one row. Trees grow to the next of few sizes by nodes that nobody sees,
the cache has a fixed size, and features are an output of the forward, so that what a forward computes depends neither
on the round nor on the drafter, and one compiled graph per size serves all. Nothing waits for the device in between,
as CUDA graphs need it.
"""

from collections.abc import Sequence
from typing import Any

import torch

from hf_mmspec.modeling import DraftTree
from hf_mmspec.modeling.fixed_rows import round_up

from .capture import Captured
from .compiled import CompiledForward
from .fixed_cache import FixedTreeCache
from .target import Target, Verified
from .tree_batch import TreeBatch

# Numbers of nodes that are verified at once; beyond the last, its multiples.
SIZES = (1, 8, 16, 32, 64)


class CompiledTarget(Target):
    """As `Target`, of a request with one row.

    Args:
        compiled: runs the target and reads its features.
        feature_layers: as in `capture`.
    """

    cache_class = FixedTreeCache
    cache: FixedTreeCache

    def __init__(
        self,
        compiled: CompiledForward,
        model_kwargs: dict[str, Any],
        captured: Captured,
        room: int,
        cache_is_wanted: bool,
        feature_layers: Sequence[int] | None,
    ):
        super().__init__(compiled.view, model_kwargs, captured, room, cache_is_wanted)
        self._compiled = compiled
        self._feature_layers = feature_layers

    def verify(self, trees: Sequence[DraftTree]) -> list[Verified]:
        """One forward over all nodes of the one row's tree and nodes that fill it up to the next size."""
        count = len(trees[0])
        batch = TreeBatch.of(trees, spare=round_up(count, SIZES) - count)
        self.cache.open_at(self._lengths[0], batch.tokens.shape[1])
        masks = self._widened(self._tree_masks(batch))
        outputs, features = self._compiled(self._verify_inputs(batch, masks), self._feature_layers)
        return self._verified(trees, batch, outputs, features)

    def _widened(self, mask: Any) -> Any:
        """The mask has a column for each row of the cache."""
        if isinstance(mask, dict):
            return {kind: self._widened(each) for kind, each in mask.items()}
        missing = self.cache.capacity - mask.shape[-1]
        return torch.nn.functional.pad(mask, (0, missing), value=torch.finfo(mask.dtype).min)
