"""Endless labelled pictures for the vision tower: six scenes in ten, the rest charts.

Its border: batches of pixels and labels of one split, reproducible from the index of the picture.
"""

import numpy as np
import torch
from PIL import Image

from ..model.processor import IMAGE_MEAN, IMAGE_STD
from ..world import chart, scene
from ..world.splits import Split, draw_chart, draw_scene
from .patches import PatchLabels, label_chart, label_scene


def to_pixels(image: Image.Image) -> torch.Tensor:
    """A 192 x 192 RGB image to [3, 192, 192], as the processor normalises it."""
    array = np.asarray(image, np.float32) / 255
    return torch.from_numpy((array - IMAGE_MEAN) / IMAGE_STD).permute(2, 0, 1)


def picture(split: Split, index: int) -> tuple[Image.Image, PatchLabels]:
    """The picture of this index with what its patches show."""
    if index % 10 < 6:
        facts = draw_scene(split, index)
        return scene.paint(facts), label_scene(facts)
    bars = draw_chart(split, index)
    return chart.paint(bars), label_chart(bars)


def batch(split: Split, first: int, count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pixels [B, 3, 192, 192], words [B, 144] and details [B, 144, 2] of consecutive pictures."""
    pixels, words, details = [], [], []
    for index in range(first, first + count):
        image, labels = picture(split, index)
        pixels.append(to_pixels(image))
        words.append(torch.from_numpy(labels.words))
        details.append(torch.from_numpy(labels.details))
    return torch.stack(pixels), torch.stack(words), torch.stack(details)
