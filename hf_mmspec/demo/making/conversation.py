"""Training conversations as token ids: 144 image tokens, one to four turns, and which tokens are the assistant's.

Its border: ids and labels. The visual embeddings that replace the image tokens come from `stage_language.py`.
"""

import random
from dataclasses import dataclass

import torch

from ..model.processor import CHAT_TEMPLATE, IMAGE_TOKEN
from ..model.tower import VISUAL_TOKENS
from ..world import chart_text, scene_text
from ..world.dialog_text import chart_dialog, scene_dialog
from ..world.samples import assistant, user
from ..world.splits import Split, draw_chart, draw_scene
from .patches import PatchLabels, label_chart, label_scene

Turns = list[tuple[str, str]]


@dataclass
class Conversation:
    """`input_ids` [T], `labels` [T] (-100 outside of the assistant's words), `patches` of the image.

    `picture` is the image's kind, split and seed.
    """

    input_ids: torch.Tensor
    labels: torch.Tensor
    patches: PatchLabels
    picture: tuple[str, Split, int]


def _dialog_turns(rng: random.Random, make, facts, extra: int) -> Turns:
    dialogs = [make(rng, facts) for _ in range(extra)]
    first = dialogs[0]
    return [(first.first_question, first.first_answer), *((dialog.question, dialog.answer) for dialog in dialogs)]


def draw_turns(kind: str, split: Split, seed: int) -> tuple[Turns, PatchLabels]:
    """Questions and answers about the scene or chart of this seed, and what its patches show."""
    rng = random.Random(f"turns/{kind}/{split}/{seed}")
    if kind == "scene":
        scene = draw_scene(split, seed)
        if rng.random() < 0.6:
            return [(rng.choice(scene_text.QUESTIONS), scene_text.describe(rng, scene))], label_scene(scene)
        return _dialog_turns(rng, scene_dialog, scene, 3), label_scene(scene)
    chart = draw_chart(split, seed)
    if rng.random() < 0.6:
        return [(rng.choice(chart_text.QUESTIONS), chart_text.describe(rng, chart))], label_chart(chart)
    return _dialog_turns(rng, chart_dialog, chart, 3), label_chart(chart)


def encode(tokenizer, turns: Turns) -> tuple[torch.Tensor, torch.Tensor]:
    """Turns to ids and labels, token for token what the processor makes of the same messages."""
    ids: list[int] = []
    labels: list[int] = []
    messages = []
    said = ""
    for i, (question, answer) in enumerate(turns):
        messages.append(user(question, with_image=i == 0))
        prompt = tokenizer.apply_chat_template(
            messages, chat_template=CHAT_TEMPLATE, tokenize=False, add_generation_prompt=True
        )
        new = prompt[len(said) :].replace(IMAGE_TOKEN, IMAGE_TOKEN * VISUAL_TOKENS)
        asked = tokenizer.encode(new, add_special_tokens=False)
        told = [*tokenizer.encode(answer, add_special_tokens=False), tokenizer.eos_token_id]
        ids += asked + told
        labels += [-100] * len(asked) + told
        messages.append(assistant(answer))
        said = f"{prompt}{answer}<|im_end|>"
    return torch.tensor(ids), torch.tensor(labels)


def conversation(tokenizer, split: Split, index: int) -> Conversation:
    """The conversation of this index: every other one about a chart."""
    kind = "chart" if index % 2 else "scene"
    seed = 2_000_000 + index
    turns, patches = draw_turns(kind, split, seed)
    return Conversation(*encode(tokenizer, turns), patches, (kind, split, seed))
