"""The flow of `mmspec demo` and `generate` once the models are loaded: show, measure, write files.

Prints to a rich console; decides nothing about decoding.
"""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from transformers import PreTrainedModel

from hf_mmspec.demo import samples
from hf_mmspec.evaluation.loading import prepare
from hf_mmspec.modeling import Drafter

from .compare import Comparison, compare, warm_up
from .picture import draw


def show_samples(
    target: PreTrainedModel,
    processor: Any,
    drafter: Drafter,
    console: Console,
    folder: Path,
    max_new_tokens: int,
) -> bool:
    """One held-out image of every task, answered twice, and one picture; returns whether all answers agree."""
    folder.mkdir(parents=True, exist_ok=True)
    comparisons = []
    for index, sample in enumerate(samples("test", n=3)):
        path = folder / f"{sample['task']}.png"
        sample["image"].save(path)
        inputs = prepare(processor, sample["messages"], sample["image"], target)
        if index == 0:
            warm_up(target, drafter, inputs)
        question = _last_question(sample["messages"])
        console.rule(f"{sample['task']}: {path}", align="left")
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
                image=sample["image"],
                question=question,
            )
        )
    return _finish(comparisons, console, folder / "demo.png")


def show_one(
    target: PreTrainedModel,
    processor: Any,
    drafter: Drafter,
    console: Console,
    image: Any,
    prompt: str,
    picture: Path,
    *,
    title: str,
    max_new_tokens: int,
    temperature: float,
) -> bool:
    """The user's image and question, answered twice; returns whether the answers agree."""
    content = [{"type": "image"}, {"type": "text", "text": prompt}]
    inputs = prepare(processor, [{"role": "user", "content": content}], image, target)
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
        image=image,
        question=prompt,
    )
    return _finish([comparison], console, picture)


def _last_question(messages: list[dict[str, Any]]) -> str:
    return " ".join(part["text"] for part in messages[-1]["content"] if part["type"] == "text")


def _finish(comparisons: list[Comparison], console: Console, picture: Path) -> bool:
    draw(comparisons, picture)
    console.print(f"\npicture: {picture}")
    return all(each.difference is None or each.difference.is_near_tie for each in comparisons)
