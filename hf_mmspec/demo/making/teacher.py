"""What SmolLM2 itself answers to open questions, before anything is taught: kept so that it is not unlearnt.

Questions about a picture are answered from a description in words, so that free talk about pictures can be learnt from
it too. Its border: questions and answers as text, in one JSON lines file that a rerun continues.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from transformers import GenerationMixin

from ..model.processor import CHAT_TEMPLATE
from ..world.chat_text import PICTURE_QUESTIONS, open_questions
from ..world.scene import Scene
from ..world.scene_text import in_reading_order
from ..world.splits import Split, draw_scene
from ..world.wording import a, listing, place
from ..world.words import BACKGROUNDS

FIRST_SCENE = 4_000_000
TEMPERATURE = 0.8
MAX_NEW_TOKENS = 140


@dataclass(frozen=True)
class Talk:
    """One open question, the scene's seed if it is about a picture, and the base's answer without an end token."""

    question: str
    scene: int | None
    answer: str


def in_words(scene: Scene) -> str:
    """The scene for a reader who cannot see it."""
    things = listing([f"{a(thing.noun)} {place(thing)}" for thing in in_reading_order(scene)])
    where = {"night": "at night", "brick": "in front of a brick wall"}.get(scene.background, f"on {scene.background}")
    assert scene.background in BACKGROUNDS
    return f"There is a picture that shows {things}, {where}."


def told(question: str, scene: int | None, split: Split) -> str:
    """The question as the base gets it, its picture described."""
    return question if scene is None else f"{in_words(draw_scene(split, scene))}\n{question}"


def questions(split: Split, count: int) -> list[tuple[str, int | None]]:
    """The first `count` open questions of a split: every other one about a picture."""
    texts = open_questions(split)
    return [
        (PICTURE_QUESTIONS[i // 2 % len(PICTURE_QUESTIONS)], FIRST_SCENE + i)
        if i % 2
        else (texts[i // 2 % len(texts)], None)
        for i in range(count)
    ]


def read_talks(path: Path) -> list[Talk]:
    """The talks of a file; none where it does not exist yet."""
    return [Talk(**json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []


def _chat(tokenizer, text: str) -> str:
    messages = [{"role": "user", "content": text}]
    return tokenizer.apply_chat_template(
        messages, chat_template=CHAT_TEMPLATE, tokenize=False, add_generation_prompt=True
    )


@torch.inference_mode()
def _answers(model: GenerationMixin, tokenizer, asked: list[str]) -> Iterator[str]:
    tokenizer.padding_side = "left"
    inputs = tokenizer([_chat(tokenizer, text) for text in asked], return_tensors="pt", padding=True)
    output = model.generate(
        **inputs, do_sample=True, temperature=TEMPERATURE, top_k=0, max_new_tokens=MAX_NEW_TOKENS, pad_token_id=2
    )
    yield from tokenizer.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


def collect_talks(model: GenerationMixin, tokenizer, split: Split, count: int, path: Path, batch: int = 48) -> None:
    """Asks the untouched base the questions that `path` does not answer yet."""
    asked = questions(split, count)
    while len(known := read_talks(path)) < count:
        some = asked[len(known) : len(known) + batch]
        torch.manual_seed(len(known))
        answers = list(_answers(model, tokenizer, [told(*question, split) for question in some]))
        with path.open("a") as file:
            for (question, scene), text in zip(some, answers, strict=True):
                file.write(json.dumps(asdict(Talk(question, scene, text))) + "\n")
