"""Prompts by the number of their pictures, and how many visual tokens these are.

Knows a processor; neither drafters nor what is measured.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

import torch

from hf_mmspec.data import Conversation, model_inputs
from hf_mmspec.generation.visual_spans import visual_token_ids
from hf_mmspec.modeling.binding import unwrap

Groups = Mapping[int, Sequence[Conversation]]


def by_pictures(prompts: Sequence[Conversation]) -> dict[int, list[Conversation]]:
    """Prompts by number of pictures, fewest first."""
    groups: dict[int, list[Conversation]] = defaultdict(list)
    for prompt in prompts:
        groups[len(prompt.pictures)].append(prompt)
    return {count: groups[count] for count in sorted(groups)}


def visual_tokens(model: Any, processor: Any, groups: Groups) -> dict[int, int]:
    """Visual tokens of a prompt by number of pictures, rounded means.

    Raises:
        PictureError: a picture cannot be opened.
    """
    ids = torch.tensor(sorted(visual_token_ids(unwrap(model).config).values()))

    def count(prompt: Conversation) -> int:
        return int(torch.isin(model_inputs(processor, [prompt])["input_ids"], ids).sum())

    return {pictures: round(mean(map(count, prompts))) for pictures, prompts in groups.items()}
