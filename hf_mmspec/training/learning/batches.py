"""What Trainer's loader calls for each step: picks become records, records become a batch.

Runs in the training process, since reading on the fly needs the target.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..features.record import Record
from ..features.source import RecordSource
from .collator import collate
from .drafter_with_loss import DrafterWithLoss
from .on_policy import own_records
from .order import Pick


@dataclass(frozen=True)
class BatchMaker:
    """A `data_collator`.

    Args:
        source: where records come from.
        module: the drafter that is trained, and what it can say.
    """

    source: RecordSource
    module: DrafterWithLoss

    def __call__(self, picks: Sequence[Pick]) -> dict[str, Any]:
        return collate(self.records(picks), self.module.parts.knows, self.module.drafter.device)

    def records(self, picks: Sequence[Pick]) -> list[Record]:
        """The records of some picks, with the drafter's own proposals where the stage wants some; pictures are cut out
        where they are not to be seen."""
        indices = [pick.index for pick in picks]
        found, seen = self.source.records(indices), [pick.pictures for pick in picks]
        policy = self.module.stage.on_policy
        if policy is not None:
            device = found[0].features.device
            own = [each.to(device) for each in own_records(self.module, self.source, indices, found, policy)]
            found, seen = [*found, *own], [*seen, *(True for _ in own)]
        return [record if pictures else record.without_images() for record, pictures in zip(found, seen, strict=True)]
