"""A published vocabulary map, checked: `d2t` holds offsets, `t2d` says the same the other way round.

Knows nothing of files or layouts.
"""

import torch

from ..modeling.strict_loading import check_draft_map
from .errors import ConversionError


def checked_map(d2t: torch.Tensor | None, t2d: torch.Tensor | None, draft_size: int, vocab_size: int) -> torch.Tensor:
    """The map `int64 (draft_size,)`: draft id i is target id `i + d2t[i]`.

    Args:
        d2t: as published; None where there is none, which a full vocabulary allows (zeros, the identity).
        t2d: as published, `(vocab_size,)`, nonzero where a target id can be drafted; None skips the comparison.

    Raises:
        ConversionError: dropped, misshaped, out of range, ids instead of offsets, or the two contradict each other.
    """
    if d2t is None:
        if draft_size < vocab_size:
            raise ConversionError(
                f"d2t is missing: without this map the {draft_size} drafted ids of {vocab_size} mean nothing. Get a "
                "checkpoint that has it."
            )
        d2t = torch.zeros(draft_size, dtype=torch.long)
    if d2t.shape != (draft_size,) or d2t.is_floating_point() or d2t.dtype == torch.bool:
        raise ConversionError(
            f"d2t must be {draft_size} whole numbers (draft_vocab_size), found {tuple(d2t.shape)} of {d2t.dtype}"
        )
    d2t = d2t.long()
    if t2d is not None:
        _compare(d2t, t2d, vocab_size)
    try:
        check_draft_map(d2t, vocab_size)
    except ValueError as error:
        raise ConversionError(str(error)) from error
    return d2t


def _compare(d2t: torch.Tensor, t2d: torch.Tensor, vocab_size: int) -> None:
    if t2d.shape != (vocab_size,):
        raise ConversionError(f"t2d must have an entry for each of {vocab_size} tokens, found {tuple(t2d.shape)}")
    said = t2d.nonzero()[:, 0]
    ids = (torch.arange(len(d2t)) + d2t).sort().values
    if torch.equal(ids, said):
        return
    if torch.equal(d2t.sort().values, said):
        raise ConversionError("d2t holds target ids where offsets belong: subtract torch.arange(len(d2t)) from it")
    raise ConversionError(
        f"d2t and t2d contradict each other ({len(ids)} and {len(said)} tokens): one of them is of another drafter"
    )
