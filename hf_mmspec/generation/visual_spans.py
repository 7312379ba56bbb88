"""Finds where each image stands in a prompt: one half-open span of visual tokens per image.

Works on token ids and the number of visual tokens per image; knows no model family.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate, groupby, pairwise
from typing import Any

import torch
from transformers import PreTrainedConfig

_MODALITIES = ("image", "video")


def visual_token_ids(config: PreTrainedConfig) -> dict[str, int]:
    """The placeholder ids that `config` declares, for example `{"image": 32000}`."""
    ids = {name: getattr(config, f"{name}_token_id", None) for name in _MODALITIES}
    return {name: token for name, token in ids.items() if token is not None}


def find_visual_spans(
    input_ids: torch.Tensor, config: PreTrainedConfig, encoded: Mapping[str, Any] | None = None
) -> list[tuple[int, int]]:
    """Spans `(start, stop)` of the images and videos in one prompt, in order.

    Args:
        input_ids: `(length,)` expanded ids, one per visual token.
        encoded: `generate`'s `mm_encoder_outputs`, whose features tell adjacent images apart.
    """
    spans: list[tuple[int, int]] = []
    for name, token in visual_token_ids(config).items():
        positions = (input_ids == token).nonzero().flatten().tolist()
        for chunk in _split_by_image(positions, (encoded or {}).get(name)):
            spans += _contiguous_runs(chunk)
    return sorted(spans)


def find_spans_of_rows(
    rows: Sequence[torch.Tensor], config: PreTrainedConfig, encoded: Mapping[str, Any] | None = None
) -> list[list[tuple[int, int]]]:
    """`find_visual_spans` for each prompt of a batch, whose images `encoded` holds one after the other."""
    border = rows[0].new_full((1,), -1)  # keeps images apart that end one row and begin the next
    joined = torch.cat([part for row in rows for part in (row, border)])
    found = find_visual_spans(joined, config, encoded)
    starts = [0, *accumulate(len(row) + 1 for row in rows)]
    return [
        [(start - first, stop - first) for start, stop in found if first <= start < after]
        for first, after in pairwise(starts)
    ]


def _split_by_image(positions: list[int], output: Any) -> list[list[int]]:
    """Cut the visual positions into images; all together where the encoder does not say how many each has."""
    features = getattr(output, "pooler_output", None)
    if features is None:
        return [positions]
    sizes = [feature.shape[0] for feature in features]
    if sum(sizes) != len(positions):
        return [positions]
    stops = torch.tensor(sizes).cumsum(0).tolist()
    return [positions[stop - size : stop] for size, stop in zip(sizes, stops, strict=True)]


def _contiguous_runs(positions: list[int]) -> list[tuple[int, int]]:
    """Half-open runs of consecutive numbers; text between two parts of an image ends a span."""
    runs = []
    for _, group in groupby(enumerate(positions), key=lambda pair: pair[1] - pair[0]):
        members = [position for _, position in group]
        runs.append((members[0], members[-1] + 1))
    return runs
