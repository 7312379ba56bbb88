"""Everything about a conversion that can be known or wrong before a file is written.

Compares a layout's names, shapes and dtypes with those of the drafter that its config makes; writes nothing.
"""

from dataclasses import dataclass
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError

from ..modeling import FAMILIES, DrafterConfig
from ..modeling.binding import describe_rows, probe_ids
from .checkpoint import Checkpoint
from .draft_vocabulary import checked_map
from .errors import ConversionError
from .layout import EMBEDDINGS, Layout

_HEAD, _MAP = "lm_head.weight", "d2t"


@dataclass(frozen=True)
class Plan:
    """A conversion that will succeed.

    Args:
        config: the drafter's.
        sources: our name -> the authors', for every weight that is copied as it is.
        made: our name -> a small tensor that is not copied (the vocabulary map as int64).
        left_out: the authors' name -> why.
    """

    checkpoint: Checkpoint
    layout: Layout
    config: DrafterConfig
    sources: dict[str, str]
    made: dict[str, torch.Tensor]
    left_out: dict[str, str]

    def nbytes(self, ours: str) -> int:
        """Size of one of our tensors."""
        return self.made[ours].nbytes if ours in self.made else self.checkpoint.tensors[self.sources[ours]].nbytes


def make_plan(checkpoint: Checkpoint, layout: Layout) -> Plan:
    """Match a checkpoint with the drafter it becomes.

    Raises:
        ConversionError: names the tensors that are missing, unexpected or misshaped, or what else is wrong.
    """
    config = _make_config(layout, checkpoint.source)
    expected = expected_tensors(config)
    left_out = _left_out(checkpoint, layout, expected)
    sources = _match(checkpoint, layout, left_out, expected)
    made = {}
    if _MAP in expected:
        made[_MAP] = _read_map(checkpoint, config)
        sources.pop(_MAP, None)
    _check_shapes(checkpoint, sources, expected)
    config.target_fingerprint = _fingerprint(checkpoint, config)
    config.dtype = _main_dtype(checkpoint, sources)
    return Plan(checkpoint, layout, config, sources, made, left_out)


def _make_config(layout: Layout, source: str) -> DrafterConfig:
    try:
        return FAMILIES[layout.family][0](**layout.fields)
    except (ValueError, TypeError, StrictDataclassError) as error:
        raise ConversionError(f"{source}: config.json gives no {layout.title} drafter: {error}") from error


def expected_tensors(config: DrafterConfig) -> dict[str, torch.Tensor]:
    """Names and shapes of the weights that a config asks for, without memory."""
    with torch.device("meta"):
        return FAMILIES[config.model_type][1](config).state_dict()


def _left_out(checkpoint: Checkpoint, layout: Layout, expected: dict[str, torch.Tensor]) -> dict[str, str]:
    """What is left out and why; never what the drafter has (embeddings, where they are its own)."""
    reasons = {name: layout.why_left_out(name) for name in checkpoint.tensors if layout.our_name(name) not in expected}
    return {name: why for name, why in reasons.items() if why is not None}


def _match(
    checkpoint: Checkpoint, layout: Layout, left_out: dict[str, str], expected: dict[str, torch.Tensor]
) -> dict[str, str]:
    sources: dict[str, str] = {}
    for theirs in checkpoint.tensors:
        if theirs not in left_out:
            ours = layout.our_name(theirs)
            if ours in sources:
                raise ConversionError(
                    f"{checkpoint.source}: {theirs} and {sources[ours]} are the same weight: keep one"
                )
            sources[ours] = theirs
    if _HEAD in expected and _HEAD not in sources and _has_tied_head(checkpoint, expected):
        sources[_HEAD] = EMBEDDINGS
    missing = sorted(layout.their_name(ours) for ours in expected.keys() - sources.keys() - {_MAP})
    unexpected = sorted(sources[ours] for ours in sources.keys() - expected.keys())
    if missing or unexpected:
        lists = {"missing": missing, "unexpected": unexpected}
        complaint = "; ".join(f"{what}: {', '.join(names)}" for what, names in lists.items() if names)
        raise ConversionError(
            f"{checkpoint.source} does not have the tensors of {layout.title} ({complaint}). Nothing is left out or "
            "made up on purpose: check that config.json belongs to these weights (biases and numbers of layers are "
            "said there), or that the download is complete."
        )
    return sources


def _has_tied_head(checkpoint: Checkpoint, expected: dict[str, torch.Tensor]) -> bool:
    """A drafter whose head is its embeddings stores one of them; only a full vocabulary allows that."""
    embeddings = checkpoint.tensors.get(EMBEDDINGS)
    is_tied = checkpoint.config.get("tie_word_embeddings", False)
    return bool(is_tied and embeddings and embeddings.shape == tuple(expected[_HEAD].shape))


def _read_map(checkpoint: Checkpoint, config: Any) -> torch.Tensor:
    d2t, t2d = (checkpoint.read(name) if name in checkpoint.tensors else None for name in (_MAP, "t2d"))
    return checked_map(d2t, t2d, config.draft_vocab_size, config.vocab_size)


def _check_shapes(checkpoint: Checkpoint, sources: dict[str, str], expected: dict[str, torch.Tensor]) -> None:
    wrong = []
    for ours, theirs in sources.items():
        found, wanted = checkpoint.tensors[theirs], tuple(expected[ours].shape)
        if found.shape != wanted:
            wrong.append(f"{theirs} is {found.shape} where config.json asks for {wanted}")
        elif found.dtype is None or not found.dtype.is_floating_point:
            wrong.append(f"{theirs} is no floating-point tensor (quantized weights are not converted)")
    if wrong:
        raise ConversionError(
            f"{checkpoint.source}: {'; '.join(wrong)}. Config and weights belong to different drafters."
        )


def _fingerprint(checkpoint: Checkpoint, config: DrafterConfig) -> dict[str, list[float]] | None:
    """Of the frozen copy of the target's embeddings, so that binding to other ones warns."""
    found = checkpoint.tensors.get(EMBEDDINGS)
    if found is None or config.owns_embeddings:
        return None
    if found.shape != (config.vocab_size, config.hidden_size):
        raise ConversionError(
            f"{checkpoint.source}: {EMBEDDINGS} is {found.shape} where config.json says vocab_size "
            f"{config.vocab_size} and hidden_size {config.hidden_size}: correct config.json"
        )
    with checkpoint.reader(EMBEDDINGS) as table:
        return {"embed_tokens": describe_rows(table[probe_ids(len(table))])}


def _main_dtype(checkpoint: Checkpoint, sources: dict[str, str]) -> torch.dtype | None:
    """That of most weights; the files keep each tensor's own."""
    sizes: dict[torch.dtype | None, int] = {}
    for theirs in sources.values():
        info = checkpoint.tensors[theirs]
        sizes[info.dtype] = sizes.get(info.dtype, 0) + info.nbytes
    return max(sizes, key=lambda dtype: sizes[dtype])
