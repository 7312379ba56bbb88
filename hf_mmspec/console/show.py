"""The flow of `mmspec demo` and `generate` once the models are loaded: show, measure, write files.

Prints to a rich console; decides nothing about decoding.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from transformers import PreTrainedModel

from hf_mmspec.data import Conversation, check_text, model_inputs, user_message
from hf_mmspec.demo import samples
from hf_mmspec.evaluation.prompts import to_target
from hf_mmspec.modeling import Drafter

from .compare import Comparison, compare, warm_up
from .picture import draw
from .safe_text import safe


def show_samples(
    target: PreTrainedModel,
    processor: Any,
    drafter: Drafter,
    console: Console,
    folder: Path,
    max_new_tokens: int,
) -> bool:
    """One held-out image of three tasks, answered twice, and one picture; returns whether all answers agree."""
    folder.mkdir(parents=True, exist_ok=True)
    comparisons = []
    for index, sample in enumerate(samples("test", n=3)):
        path = folder / f"{sample['task']}.png"
        sample["image"].save(path)
        conversation = Conversation(sample["messages"], sample["images"], task=sample["task"])
        inputs = _inputs(processor, conversation, target)
        if index == 0:
            warm_up(target, drafter, inputs)
        question = _last_question(conversation)
        console.rule(f"{sample['task']}: {safe(path)}", align="left")
        console.print(f"[bold]{escape(question)}[/bold]\n")
        comparisons.append(
            compare(
                target,
                processor,
                drafter,
                inputs,
                console,
                max_new_tokens=max_new_tokens,
                title=sample["task"],
                images=conversation.pictures,
                question=question,
            )
        )
    return _finish(comparisons, console, folder / "demo.png")


def show_one(
    target: PreTrainedModel,
    processor: Any,
    drafter: Drafter,
    console: Console,
    images: Sequence[Any],
    prompt: str,
    picture: Path,
    *,
    title: str,
    max_new_tokens: int,
    temperature: float,
) -> bool:
    """The user's images (opened; there may be none) and question, answered twice; returns whether the answers agree.

    Raises:
        PlaceholderError: the prompt holds a word that the target reads as a place for a picture.
    """
    check_text(processor, target.config, prompt)
    inputs = _inputs(processor, Conversation([user_message(prompt, len(images))], images), target)
    warm_up(target, drafter, inputs)
    comparison = compare(
        target,
        processor,
        drafter,
        inputs,
        console,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        title=title,
        images=images,
        question=prompt,
    )
    return _finish([comparison], console, picture)


def _inputs(processor: Any, conversation: Conversation, target: PreTrainedModel) -> dict[str, Any]:
    """What `target.generate` takes, on its device, pixels in its dtype."""
    return to_target(model_inputs(processor, [conversation]), target)


def _last_question(conversation: Conversation) -> str:
    return " ".join(part["text"] for part in conversation.messages[-1]["content"] if part["type"] == "text")


def _finish(comparisons: list[Comparison], console: Console, picture: Path) -> bool:
    draw(comparisons, picture)
    console.print(f"\npicture: {safe(picture)}")
    return all(each.difference is None or each.difference.is_near_tie for each in comparisons)
