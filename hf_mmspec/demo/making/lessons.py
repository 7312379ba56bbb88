"""What the last stage learns from: all tasks in turn, with the base's own free talk among them.

Its border: ids, labels and pictures of one lesson each. How they are learnt is `stage_tasks.py`.
"""

import json
import random
from dataclasses import dataclass, field

import torch
from PIL import Image

from hf_mmspec.rewriting.instruction import FIELDS

from ..model.processor import CHAT_TEMPLATE, IMAGE_TOKEN
from ..model.tower import VISUAL_TOKENS
from ..world import chart, scene
from ..world.samples import sample, user
from ..world.splits import Split, draw_chart, draw_scene
from .conversation import draw_turns, encode
from .teacher import Talk, told

# Of twenty lessons: 12 rewrites, 3 talks, 5 conversations about a scene or a chart.
_ORDER = tuple("rrtrcrrcrrtrcrrcrrtc")
CUT_SHORT = 0.15  # share of the rewrites whose reasoning is broken off, as a thinking budget does


@dataclass
class Lesson:
    """`input_ids` [T], `labels` [T] (-100 outside of what is to be learnt) and the pictures of the image tokens.

    `told` [U] is the same question and answer as the base reads it, for a talk; None elsewhere. Its last tokens are
    those of the labels.
    """

    input_ids: torch.Tensor
    labels: torch.Tensor
    images: list[Image.Image] = field(default_factory=list)
    told: torch.Tensor | None = None


def _encode(tokenizer, messages: list[dict], answer: str) -> tuple[torch.Tensor, torch.Tensor]:
    prompt = tokenizer.apply_chat_template(
        messages, chat_template=CHAT_TEMPLATE, tokenize=False, add_generation_prompt=True
    )
    asked = tokenizer.encode(prompt.replace(IMAGE_TOKEN, IMAGE_TOKEN * VISUAL_TOKENS), add_special_tokens=False)
    said = [*tokenizer.encode(answer, add_special_tokens=False), tokenizer.eos_token_id]
    return torch.tensor(asked + said), torch.tensor([-100] * len(asked) + said)


def _broken_off(rng: random.Random, answer: str) -> str:
    """The same object, its reasoning ended after some of its words."""
    made = json.loads(answer)
    words = made[FIELDS[0]].split(" ")
    made[FIELDS[0]] = " ".join(words[: rng.randrange(len(words))])
    return json.dumps(made, ensure_ascii=False)


def rewrite_lesson(tokenizer, split: Split, index: int) -> Lesson:
    """A wish with its rewrite."""
    made, rng = sample(split, "rewrite", 100_000 + index), random.Random(f"lesson/{split}/{index}")
    answer = _broken_off(rng, made["answer"]) if rng.random() < CUT_SHORT else made["answer"]
    return Lesson(*_encode(tokenizer, made["messages"], answer), made["images"])


def talk_lesson(tokenizer, talk: Talk, split: Split = "train") -> Lesson:
    """A free answer of the base; one that did not come to an end teaches no end."""
    seen = talk.scene is not None
    images = [scene.paint(draw_scene(split, talk.scene))] if talk.scene is not None else []
    ids, labels = _encode(tokenizer, [user(talk.question, with_image=seen)], talk.answer)
    known, _ = _encode(tokenizer, [user(told(talk.question, talk.scene, split))], talk.answer)
    return Lesson(ids[:-1], labels[:-1], images, known[:-1])


def conversation_lesson(tokenizer, split: Split, index: int) -> Lesson:
    """Turns about a scene or a chart."""
    kind, seed = "chart" if index % 2 else "scene", 7_000_000 + index
    turns, _ = draw_turns(kind, split, seed)
    image = scene.paint(draw_scene(split, seed)) if kind == "scene" else chart.paint(draw_chart(split, seed))
    return Lesson(*encode(tokenizer, turns), [image])


def lesson(tokenizer, talks: list[Talk], index: int) -> Lesson:
    """Lesson `index` of the training split."""
    kind = _ORDER[index % len(_ORDER)]
    if kind == "r":
        return rewrite_lesson(tokenizer, "train", index)
    if kind == "c":
        return conversation_lesson(tokenizer, "train", index)
    turn = index // len(_ORDER) * _ORDER.count("t") + _ORDER[: index % len(_ORDER)].count("t")
    return talk_lesson(tokenizer, talks[turn % len(talks)])
