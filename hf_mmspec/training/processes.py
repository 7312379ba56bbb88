"""The processes that work together, as accelerate knows them.

Starts none: `accelerate launch` does.
"""

import torch
from accelerate import PartialState


def processes() -> PartialState:
    """Which of how many this one is. On machines without a GPU accelerate sees several only when it is told that the
    processor is meant."""
    return PartialState(cpu=not torch.cuda.is_available())
