"""Looks at what a drafter computes while it proposes."""

from contextlib import contextmanager

import torch

from hf_mmspec.modeling import Drafter


@contextmanager
def recorded_drafts(drafter: Drafter):
    """Yields two lists that fill, level by level, with what enters `draft_logits` and what comes out."""
    hidden_states: list[torch.Tensor] = []
    logits: list[torch.Tensor] = []
    compute = drafter.draft_logits

    def recording(hidden, borrowed=None):
        hidden_states.append(hidden)
        logits.append(compute(hidden, borrowed))
        return logits[-1]

    drafter.draft_logits = recording
    try:
        yield hidden_states, logits
    finally:
        del drafter.draft_logits
