"""Sizes that tiny random targets of many families share, and two pictures as each kind of processor gives them.

The families themselves are in the files beside this one.
"""

from collections.abc import Callable
from typing import Any

import torch
from transformers import CLIPVisionConfig, SiglipVisionConfig

from tests.generation import tiny

SIDE, PATCH = 16, 4  # pixels
TEXT = dict(
    vocab_size=tiny.VOCAB,
    hidden_size=tiny.HIDDEN,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=tiny.EOS,
)
TEXT_WITHOUT_HEAD_DIM = {name: value for name, value in TEXT.items() if name != "head_dim"}
VISION = dict(
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=2,
    image_size=SIDE,
    patch_size=PATCH,
)
MOE = dict(moe_intermediate_size=24, num_experts=4, num_experts_per_tok=2)
TWO_KINDS = dict(
    num_hidden_layers=4, layer_types=["sliding_attention", "full_attention"] * 2, sliding_window=12
)  # shorter than prompt and answer

VIDEO_TOKEN, VISION_START, VISION_END = 118, 117, 116
IMAGE_ID = dict(image_token_id=tiny.IMAGE_TOKEN)
IMAGE_INDEX = dict(image_token_index=tiny.IMAGE_TOKEN)  # the same under its older name
VISUAL_IDS = dict(**IMAGE_ID, video_token_id=VIDEO_TOKEN)
QWEN_IDS = dict(**VISUAL_IDS, vision_start_token_id=VISION_START, vision_end_token_id=VISION_END)

Pixels = Callable[[torch.Generator], dict[str, Any]]


def clip() -> CLIPVisionConfig:
    return CLIPVisionConfig(**VISION, projection_dim=16)


def siglip() -> SiglipVisionConfig:
    return SiglipVisionConfig(**VISION)


def squares(generator: torch.Generator, side: int = SIDE) -> dict[str, Any]:
    return {"pixel_values": torch.randn(2, 3, side, side, generator=generator)}


def row_of_squares(generator: torch.Generator) -> dict[str, Any]:
    """All pictures of a prompt in one row of the batch."""
    return {"pixel_values": torch.randn(1, 2, 3, SIDE, SIDE, generator=generator)}


def tiles(generator: torch.Generator) -> dict[str, Any]:
    """An overview and two tiles for each picture; the second is padded."""
    return {
        "pixel_values": torch.randn(2, 3, 3, SIDE, SIDE, generator=generator),
        "image_sizes": torch.tensor([[SIDE, 2 * SIDE], [SIDE, 28]]),
    }


def two_sizes(generator: torch.Generator) -> dict[str, Any]:
    """Two sizes in one padded tensor."""
    return {
        "pixel_values": torch.randn(2, 3, SIDE, SIDE, generator=generator),
        "image_sizes": torch.tensor([[SIDE, SIDE], [SIDE, SIDE // 2]]),
    }


def flat_patches(generator: torch.Generator, frames: int = 2) -> dict[str, Any]:
    """Patches of two sizes in one row after the other, `frames` of a patch joined, with their grids."""
    return {
        "pixel_values": torch.randn(4 * 4 + 4 * 6, 3 * frames * PATCH**2, generator=generator),
        "image_grid_thw": torch.tensor([[1, 4, 4], [1, 4, 6]]),
    }


def square_patches(generator: torch.Generator) -> dict[str, Any]:
    """The same with patches that keep their shape."""
    inputs = flat_patches(generator, frames=1)
    return inputs | {"pixel_values": inputs["pixel_values"].view(-1, 3, PATCH, PATCH)}


def placed_patches(generator: torch.Generator) -> dict[str, Any]:
    """Patches with their columns and rows."""
    places = torch.cartesian_prod(torch.arange(4), torch.arange(4)).flip(-1)
    return {
        "pixel_values": torch.randn(2, 16, 3 * PATCH**2, generator=generator),
        "image_position_ids": places.expand(2, -1, -1),
    }
