"""Looks at what a drafter computes while it proposes."""

from contextlib import contextmanager

import torch

from hf_mmspec.modeling import Drafter


@contextmanager
def recorded_drafts(drafter: Drafter):
    """Yields two lists that fill, level by level, with what enters `draft_logits` and what comes out, by node."""
    hidden_states: list[torch.Tensor] = []
    logits: list[torch.Tensor] = []
    compute = drafter.draft_logits

    def recording(hidden, borrowed=None):
        computed = compute(hidden, borrowed)
        hidden_states.append(hidden.flatten(0, -2))
        logits.append(computed.flatten(0, -2))
        return computed

    drafter.draft_logits = recording
    try:
        yield hidden_states, logits
    finally:
        del drafter.draft_logits
