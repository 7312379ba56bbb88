"""What the trained tower and projector really see: the visual tokens of stage 3.

Its border: a frozen `VisionLearner` as a source of visual tokens.
"""

import torch

from ..world import chart, scene
from ..world.splits import draw_chart, draw_scene
from .conversation import Conversation
from .pictures import to_pixels
from .stage_language import Look
from .stage_vision import VisionLearner


def real_look(learner: VisionLearner) -> Look:
    """Conversations to visual tokens [B, 144, D], painted and encoded on the fly (20 ms each)."""
    learner.eval().requires_grad_(False)

    def pixels(conversation: Conversation) -> torch.Tensor:
        kind, split, seed = conversation.picture
        image = scene.paint(draw_scene(split, seed)) if kind == "scene" else chart.paint(draw_chart(split, seed))
        return to_pixels(image)

    @torch.no_grad()
    def look(conversations: list[Conversation]) -> torch.Tensor:
        return learner(torch.stack([pixels(c) for c in conversations]))[2]

    return look
