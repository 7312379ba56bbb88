"""Stage 4: the language model learns all tasks together, and keeps its own way of talking.

Talks are learnt from the base's whole distribution (KL), everything else from its tokens (cross entropy). Its border:
the two factors of every changed layer; tower and projector are frozen.
"""

import logging
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax

from ..world.looks import CHANGES, PLACES, SHAPES, STYLES
from .checkpoint import load_state, save_state
from .lessons import Lesson, lesson
from .low_rank import LowRank
from .pictures import to_pixels
from .stage_language import FACT_WEIGHT, IMAGE_TOKEN_ID, PAD_TOKEN_ID, fact_weights
from .teacher import Talk

log = logging.getLogger(__name__)
# Words with which a rewrite decides what kind of wish it has before it; none of them is a common word elsewhere, as a
# weight on one branch alone would teach that branch.
_DECISIONS = ("free", "removes", "adds", "changes", "takes", "joins", "asks", "empty", "guest", "freed")


@dataclass(frozen=True)
class TasksRecipe:
    """Length and speed; a step takes `group` lessons of similar length."""

    name: str = "tasks"
    steps: int = 1120
    lr: float = 4e-4
    group: int = 4
    warmup: int = 20
    save_every: int = 25


@dataclass
class Learner:
    """The target with parametrised layers, its factors, the untouched base, the tokenizer and the fact weights."""

    target: Any
    factors: dict[str, LowRank]
    base: Any
    tokenizer: Any
    weights: torch.Tensor


def wish_weights(tokenizer, size: int) -> torch.Tensor:
    """As `fact_weights` [V]; words that follow from the wish count more too: ratios, places, changes, styles."""
    weights = fact_weights(tokenizer, size)
    words = [f" {word}" for word in (*PLACES, *CHANGES, *STYLES, *_DECISIONS)]
    for text in (*words, *(ratio for ratio in SHAPES)):
        weights[tokenizer.encode(text, add_special_tokens=False)] = FACT_WEIGHT
    return weights


@torch.no_grad()
def visual_tokens(target: Any, lessons: list[Lesson]) -> torch.Tensor | None:
    """What the frozen tower and projector make of all pictures, [images * 144, D]; None without pictures."""
    images = [image for each in lessons for image in each.images]
    if not images:
        return None
    pixels = torch.stack([to_pixels(image) for image in images]).to(target.dtype)
    return torch.cat(tuple(target.model.get_image_features(pixels, return_dict=True).pooler_output))


def _padded(rows: list[torch.Tensor], value: int) -> torch.Tensor:
    return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=value)


def answer_logits(learner: Learner, lessons: list[Lesson]) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits [N, V] (float32) for all labels [N] of the lessons, row after row."""
    ids, labels = _padded([x.input_ids for x in lessons], PAD_TOKEN_ID), _padded([x.labels for x in lessons], -100)
    table = learner.target.get_input_embeddings().weight
    embeds, seen = table[ids], visual_tokens(learner.target, lessons)
    if seen is not None:
        embeds = embeds.masked_scatter((ids == IMAGE_TOKEN_ID)[..., None], seen.to(embeds.dtype))
    hidden = learner.target.get_decoder()(inputs_embeds=embeds, use_cache=False).last_hidden_state
    asked = labels[:, 1:] != -100
    return (hidden[:, :-1][asked] @ table.T).float(), labels[:, 1:][asked]


@torch.no_grad()
def base_log_probs(base: Any, lessons: list[Lesson]) -> torch.Tensor:
    """What the base thinks at each label of these talks, log probabilities [N, V]."""
    rows = []
    for each in lessons:
        count = int((each.labels != -100).sum())
        hidden = base.model(input_ids=cast(torch.Tensor, each.told)[None], use_cache=False).last_hidden_state[
            0, -count - 1 : -1
        ]
        rows.append(log_softmax(base.lm_head(hidden).float(), -1))
    return torch.cat(rows)


def lesson_loss(learner: Learner, lessons: list[Lesson]) -> torch.Tensor:
    """Mean loss per token of lessons that are all talks or all none."""
    logits, labels = answer_logits(learner, lessons)
    if lessons[0].told is None:
        return cross_entropy(logits, labels, weight=learner.weights)
    wanted = base_log_probs(learner.base, lessons)
    return kl_div(log_softmax(logits, -1), wanted, log_target=True, reduction="batchmean")


def _groups(learner: Learner, talks: list[Talk], recipe: TasksRecipe, step: int, pool: int = 20) -> list[list[Lesson]]:
    """The next `pool` steps: lessons of similar length together, talks among themselves, in random order."""
    start = step * recipe.group
    drawn = [lesson(learner.tokenizer, talks, start + i) for i in range(pool * recipe.group)]
    drawn.sort(key=lambda x: (x.told is None, len(x.input_ids)))
    groups = [drawn[i : i + recipe.group] for i in range(0, len(drawn), recipe.group)]
    random.Random(start).shuffle(groups)
    return groups


def train_tasks(recipe: TasksRecipe, learner: Learner, talks: list[Talk], folder: Path) -> None:
    """Trains (or resumes, or only loads) the stage; its state is `folder/NAME.pt`."""
    parameters = [p for factor in learner.factors.values() for p in factor.parameters()]
    modules = nn.ModuleDict({name.replace(".", "/"): factor for name, factor in learner.factors.items()})
    optimizer = torch.optim.AdamW(parameters, lr=recipe.lr, weight_decay=0.0, betas=(0.9, 0.98))
    path, step = folder / f"{recipe.name}.pt", 0
    if state := load_state(path):
        modules.load_state_dict(state["factors"])
        optimizer.load_state_dict(state["optimizer"])
        step = state["step"]
    started = time.time()
    queue: list[list[Lesson]] = []
    while step < recipe.steps:
        queue = queue or _groups(learner, talks, recipe, step)
        group = queue.pop()
        for settings in optimizer.param_groups:
            settings["lr"] = recipe.lr * min((step + 1) / recipe.warmup, 1.0, 2.5 * (1 - step / recipe.steps) + 0.02)
        loss = lesson_loss(learner, group)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        step += 1
        kind = "talk" if group[0].told is not None else "task"
        tokens = sum(len(each.input_ids) for each in group)
        log.info("step %d %s loss %.3f, %d tokens, %.0f s", step, kind, loss.item(), tokens, time.time() - started)
        if step % recipe.save_every == 0 or step == recipe.steps:
            save_state(path, {"factors": modules.state_dict(), "optimizer": optimizer.state_dict(), "step": step})
