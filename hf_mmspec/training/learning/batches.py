"""What Trainer's loader calls for each step: picks become records, records become a batch.

Runs in the training process, since reading on the fly needs the target.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..features.record import Record
from ..features.source import RecordSource
from .collator import collate
from .order import Pick


@dataclass(frozen=True)
class BatchMaker:
    """A `data_collator`.

    Args:
        source: where records come from.
        knows: which tokens the drafter can say.
    """

    source: RecordSource
    knows: Callable[[torch.Tensor], torch.Tensor]

    def __call__(self, picks: Sequence[Pick]) -> dict[str, Any]:
        return collate(self.records(picks), self.knows)

    def records(self, picks: Sequence[Pick]) -> list[Record]:
        """The records of some picks, pictures cut out where they are not to be seen."""
        found = self.source.records([pick.index for pick in picks])
        return [r if pick.pictures else r.without_images() for pick, r in zip(picks, found, strict=True)]
