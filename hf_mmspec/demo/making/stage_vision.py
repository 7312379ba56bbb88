"""Stage 1: every patch learns to land on SmolLM2's embedding of the word it shows.

Its border: tower and projector. The language model is only read for its embedding matrix.
"""

import logging
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from ..model.tower import Projector, build_tower, tower_config
from ..world.words import NOUNS, PAPER, PATCH_WORDS
from .checkpoint import load_state, save_state
from .patches import DETAIL_WORDS
from .pictures import batch
from .visual_words import VisualWords

log = logging.getLogger(__name__)
THING_WEIGHT = 4.0  # things cover a fifth of the patches, backgrounds the rest


@dataclass(frozen=True)
class VisionRecipe:
    """Size of the tower and length of its training."""

    width: int = 320
    depth: int = 3
    steps: int = 1400
    batch: int = 32
    lr: float = 2e-3
    warmup: int = 200
    save_every: int = 200


class VisionLearner(nn.Module):
    """Tower and projector with two auxiliary heads that exist in training only."""

    def __init__(self, recipe: VisionRecipe, text_width: int):
        super().__init__()
        self.tower = build_tower(tower_config(recipe.width, recipe.depth))
        self.projector = Projector(recipe.width, text_width)
        self.word_head = nn.Linear(recipe.width, len(PATCH_WORDS))
        self.detail_head = nn.Linear(recipe.width, len(DETAIL_WORDS))

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Pixels [B, 3, S, S] to word logits, detail logits and projected tokens [B, 144, D]."""
        hidden = self.tower(pixels, output_hidden_states=True, return_dict=True).hidden_states[-1]
        return self.word_head(hidden), self.detail_head(hidden), self.projector(hidden)


def _one_hot(details: torch.Tensor) -> torch.Tensor:
    hot = torch.zeros(*details.shape[:-1], len(DETAIL_WORDS) + 1)
    return hot.scatter_(-1, details.remainder(len(DETAIL_WORDS) + 1), 1.0)[..., :-1]


def _is_thing(words: torch.Tensor) -> torch.Tensor:
    return (words < len(NOUNS)) | (words >= PATCH_WORDS.index(PAPER) + 1)


def vision_loss(outputs: tuple, words: torch.Tensor, details: torch.Tensor, vocabulary: VisualWords) -> torch.Tensor:
    """Words, details and distance to the target embedding; patches that show things count more."""
    word_logits, detail_logits, projected = (output.float() for output in outputs)
    weight = torch.where(_is_thing(words), THING_WEIGHT, 1.0)
    word_loss = cross_entropy(word_logits.transpose(1, 2), words, reduction="none")
    detail_loss = binary_cross_entropy_with_logits(detail_logits, _one_hot(details), reduction="none").sum(-1)
    target = vocabulary.targets(words, details)
    distance = (projected - target).square().sum(-1) / target.square().sum(-1)
    return ((word_loss + 0.5 * detail_loss + distance) * weight).sum() / weight.sum()


@torch.no_grad()
def measure(learner: VisionLearner, vocabulary: VisualWords, count: int = 160) -> dict[str, float]:
    """Held-out accuracy: patches of things by the nearest word of the projected token, and their details."""
    learner.eval()
    hits: dict[str, list[torch.Tensor]] = {
        "noun_patches": [],
        "noun_patches_head": [],
        "rows": [],
        "columns": [],
        "numbers": [],
    }
    for first in range(0, count, 32):
        pixels, words, details = batch("val", first, 32)
        with torch.autocast("cpu", torch.bfloat16):
            word_logits, detail_logits, projected = (o.float() for o in learner(pixels))
        nearest = (projected @ vocabulary.words.T).argmax(-1)
        noun = words < len(NOUNS)
        hits["noun_patches"].append((nearest == words)[noun].float())
        hits["noun_patches_head"].append((word_logits.argmax(-1) == words)[noun].float())
        for slot, (name, start, end) in enumerate((("rows", 0, 3), ("columns", 3, 6), ("numbers", 6, 15))):
            slot = slot % 2
            has = noun & (details[..., slot] >= start) & (details[..., slot] < end)
            hits[name].append(((detail_logits[..., start:end].argmax(-1) + start) == details[..., slot])[has].float())
    learner.train()
    return {name: round(torch.cat(values).mean().item(), 4) for name, values in hits.items()}


def _learning_rate(step: int, recipe: VisionRecipe) -> float:
    warm = min(1.0, (step + 1) / recipe.warmup)
    left = max(0.0, 1.0 - step / recipe.steps)
    return recipe.lr * warm * min(1.0, left / 0.5 + 0.01)


def train_vision(recipe: VisionRecipe, vocabulary: VisualWords, folder: Path) -> VisionLearner:
    """Trains (or resumes, or only loads) stage 1; its state is `folder/vision.pt`."""
    torch.manual_seed(0)
    learner = VisionLearner(recipe, vocabulary.words.shape[1])
    learner.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(learner.parameters(), lr=recipe.lr, weight_decay=0.02, betas=(0.9, 0.98))
    step = 0
    if state := load_state(folder / "vision.pt"):
        learner.load_state_dict(state["learner"])
        optimizer.load_state_dict(state["optimizer"])
        step = state["step"]
    started = time.time()
    learner.train()
    while step < recipe.steps:
        pixels, words, details = batch("train", step * recipe.batch, recipe.batch)
        for group in optimizer.param_groups:
            group["lr"] = _learning_rate(step, recipe)
        with torch.autocast("cpu", torch.bfloat16):
            outputs = learner(pixels.contiguous(memory_format=torch.channels_last))
        loss = vision_loss(outputs, words, details, vocabulary)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(learner.parameters(), 1.0)
        optimizer.step()
        step += 1
        if step % 25 == 0:
            log.info("vision step %d loss %.3f, %.0f s", step, loss.item(), time.time() - started)
        if step % recipe.save_every == 0 or step == recipe.steps:
            save_state(
                folder / "vision.pt",
                {"learner": learner.state_dict(), "optimizer": optimizer.state_dict(), "step": step},
            )
            log.info("vision step %d %s", step, measure(learner, vocabulary))
    return learner.eval()
