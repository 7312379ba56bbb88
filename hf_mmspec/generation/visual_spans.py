"""Finds where each image and each frame of a video stands in a prompt: one half-open span of visual tokens for each.

Works on token ids, positions and what the encoder gave; knows no model family.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate, groupby, pairwise
from typing import Any

import torch
from transformers import PreTrainedConfig

_MODALITIES = ("image", "video")


def visual_token_ids(config: PreTrainedConfig) -> dict[str, int]:
    """The placeholder ids that `config` declares, or its vision part (Phi-4), for example `{"image": 32000}`."""
    parts = (config, getattr(config, "vision_config", None))
    ids = {name: [getattr(part, f"{name}_token_id", None) for part in parts] for name in _MODALITIES}
    return {name: next(filter(None, found)) for name, found in ids.items() if any(found)}


def find_visual_spans(
    input_ids: torch.Tensor,
    config: PreTrainedConfig,
    encoded: Mapping[str, Any] | None = None,
    positions: torch.Tensor | None = None,
) -> list[tuple[int, int]]:
    """Spans `(start, stop)` of the images, and of the frames of videos, in one prompt, in order.

    A frame is what the target encodes as one: several pictures of the video where it joins them in time (Qwen's
    temporal patches). Where neither the prompt's text, its positions nor the encoder tell frames apart, a video is one
    span.

    Args:
        input_ids: `(length,)` expanded ids, one per visual token.
        encoded: `generate`'s `mm_encoder_outputs`, whose features tell adjacent images apart.
        positions: `(3 or more, length)` rotary positions of M-RoPE, the last two of which are row and column.
    """
    spans: list[tuple[int, int]] = []
    for name, token in visual_token_ids(config).items():
        places = (input_ids == token).nonzero().flatten().tolist()
        output = (encoded or {}).get(name)
        for chunk in _split_by_image(places, output):
            runs = _contiguous_runs(chunk)
            # Several runs of one video are its frames, with text (time stamps) between them.
            count = _frame_count(output) if len(runs) == 1 else 1
            for run in runs:
                spans += [run] if name == "image" else _frames(*run, positions, count)
    return sorted(spans)


def find_spans_of_rows(
    rows: Sequence[torch.Tensor],
    config: PreTrainedConfig,
    encoded: Mapping[str, Any] | None = None,
    positions: Sequence[torch.Tensor] | None = None,
) -> list[list[tuple[int, int]]]:
    """`find_visual_spans` for each prompt of a batch, whose images and videos `encoded` holds one after the other."""
    border = rows[0].new_full((1,), -1)  # keeps images apart that end one row and begin the next
    joined = torch.cat([part for row in rows for part in (row, border)])
    grid = None if positions is None else torch.cat([torch.nn.functional.pad(each, (0, 1)) for each in positions], -1)
    found = find_visual_spans(joined, config, encoded, grid)
    starts = [0, *accumulate(len(row) + 1 for row in rows)]
    return [
        [(start - first, stop - first) for start, stop in found if first <= start < after]
        for first, after in pairwise(starts)
    ]


def _split_by_image(places: list[int], output: Any) -> list[list[int]]:
    """Cut the visual places into images or videos; all together where the encoder does not say what each has."""
    features = getattr(output, "pooler_output", None)
    if features is None:
        return [places]
    sizes = [feature.shape[0] for feature in features]
    if sum(sizes) != len(places):
        return [places]
    stops = torch.tensor(sizes).cumsum(0).tolist()
    return [places[stop - size : stop] for size, stop in zip(sizes, stops, strict=True)]


def _contiguous_runs(places: list[int]) -> list[tuple[int, int]]:
    """Half-open runs of consecutive numbers; text between two parts of an image ends a span."""
    runs = []
    for _, group in groupby(enumerate(places), key=lambda pair: pair[1] - pair[0]):
        members = [place for _, place in group]
        runs.append((members[0], members[-1] + 1))
    return runs


def _frames(start: int, stop: int, positions: torch.Tensor | None, count: int) -> list[tuple[int, int]]:
    """The frames of a video on `[start, stop)`; `count` of them where there are no positions of M-RoPE."""
    if positions is not None and positions.shape[0] >= 3:
        # every frame begins in the same corner of the grid
        corner = (positions[-2:, start:stop] == positions[-2:, start : start + 1]).all(0)
        starts = (start + corner.nonzero().flatten()).tolist()
    else:
        # all frames have the same number of tokens; what remains (a token that ends the video) goes with the last
        starts = [start + index * ((stop - start) // count) for index in range(count)]
    return list(zip(starts, [*starts[1:], stop], strict=True))


def _frame_count(output: Any) -> int:
    """How many frames each video has, where the tower encoded them as pictures of a batch; else 1."""
    states, videos = getattr(output, "last_hidden_state", None), getattr(output, "pooler_output", None)
    if states is None or states.dim() != 3 or videos is None or states.shape[0] % len(videos):
        return 1
    return max(states.shape[0] // len(videos), 1)
