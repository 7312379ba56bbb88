"""What the last stage learns from: all tasks in turn, with the base's own free talk among them.

Its border: ids, labels and pictures of one lesson each. How they are learnt is `stage_tasks.py`.
"""

import json
import random
import re
from dataclasses import dataclass, field

import torch
from PIL import Image

from hf_mmspec.rewriting.instruction import FIELDS

from ..model.processor import CHAT_TEMPLATE, IMAGE_TOKEN
from ..model.tower import VISUAL_TOKENS
from ..world import chart, scene
from ..world.chat_text import LENGTH
from ..world.samples import sample, user
from ..world.splits import Split, draw_chart, draw_scene
from .conversation import draw_turns, encode
from .teacher import Talk, told

# Of twenty lessons: 10 rewrites, 1 talk, 4 short talks, 5 conversations about a scene or a chart.
_ORDER = tuple("rsrcrcrsrtrcrsrcrcrs")
SENTENCES = 3  # of a short talk
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
    """A wish with its rewrite; every other one is without a picture, so that wishes are learnt from short lessons."""
    rng, seed = random.Random(f"lesson/{split}/{index}"), 100_000 + index
    made = sample(split, "rewrite", seed)
    while index // 2 % 2 and made["images"]:
        seed += 1_000_000
        made = sample(split, "rewrite", seed)
    answer = _broken_off(rng, made["answer"]) if rng.random() < CUT_SHORT else made["answer"]
    return Lesson(*_encode(tokenizer, made["messages"], answer), made["images"])


def talk_lesson(tokenizer, talk: Talk, split: Split = "train") -> Lesson:
    """A free answer of the base; one that did not come to an end teaches no end."""
    seen = talk.scene is not None
    images = [scene.paint(draw_scene(split, talk.scene))] if talk.scene is not None else []
    ids, labels = _encode(tokenizer, [user(talk.question, with_image=seen)], talk.answer)
    known, _ = _encode(tokenizer, [user(told(talk.question, talk.scene, split))], talk.answer)
    return Lesson(ids[:-1], labels[:-1], images, known[:-1])


def short_talk_lesson(tokenizer, talk: Talk, split: Split = "train") -> Lesson:
    """The beginning of a free answer as the answer to the same question, asked for a short one."""
    images = [scene.paint(draw_scene(split, talk.scene))] if talk.scene is not None else []
    sentences = re.findall(r"[^.!?]+[.!?]+", talk.answer)
    answer = "".join(sentences[:SENTENCES]).strip() or talk.answer
    asked = user(talk.question + LENGTH, with_image=bool(images))
    return Lesson(*_encode(tokenizer, [asked], answer), images)


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
    turn = index // len(_ORDER) * _ORDER.count(kind) + _ORDER[: index % len(_ORDER)].count(kind)
    return (talk_lesson if kind == "t" else short_talk_lesson)(tokenizer, talks[turn % len(talks)])
