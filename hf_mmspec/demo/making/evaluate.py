"""Does the target really see? Graded accuracy with the right, a blank and another image, and how sure its text is.

`python -m hf_mmspec.demo.making.evaluate --n 100 --json-file FILE` prints a markdown table. Its border: the target
alone; drafters are measured in `hf_mmspec.evaluation`.
"""

import itertools
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import typer
from PIL import Image
from transformers import LogitsProcessor, LogitsProcessorList

from hf_mmspec.whole_file import write_json

from ..model.loader import load_default
from ..world.grade import grade
from ..world.samples import TASKS, samples
from ..world.splits import Split

CONDITIONS = ("right", "blank", "other")
MAX_NEW_TOKENS = 320


class SureMeter(LogitsProcessor):
    """Records entropy (nats) and top probability of every step; changes nothing."""

    def __init__(self) -> None:
        self.entropy: list[torch.Tensor] = []
        self.top: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores [B, V] pass through; one value per row is kept."""
        log_probs = scores.float().log_softmax(-1)
        probs = log_probs.exp()
        self.entropy.append(-(probs * log_probs).sum(-1))
        self.top.append(probs.amax(-1))
        return scores


def with_images(messages: list[dict], images: list[Image.Image]) -> list[dict]:
    """The same messages, the images placed in their content parts."""
    left = iter(images)

    def fill(part: dict) -> dict:
        return {**part, "image": next(left)} if part["type"] == "image" else part

    return [{**message, "content": [fill(part) for part in message["content"]]} for message in messages]


def images_for(drawn: Sequence[dict], condition: str) -> Iterator[list[Image.Image]]:
    """The images each sample is asked about: its own, grey ones, or as many of the samples that follow it, round and
    round, and never its own."""
    for number, sample in enumerate(drawn):
        if condition == "blank":
            yield [Image.new("RGB", image.size, (128, 128, 128)) for image in sample["images"]]
        elif condition == "right":
            yield sample["images"]
        else:
            others = [image for other in (*drawn[number + 1 :], *drawn[:number]) for image in other["images"]]
            yield list(itertools.islice(itertools.cycle(others), len(sample["images"])))


@torch.inference_mode()
def answer(model, processor, conversations: list[list[dict]]) -> tuple[list[list[int]], SureMeter]:
    """Greedy answers as token ids (end token included), and the meter with [steps][B] values."""
    processor.tokenizer.padding_side = "left"
    inputs = processor.apply_chat_template(
        conversations,
        tokenize=True,
        add_generation_prompt=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"padding": True},
    ).to(model.device, model.dtype)
    meter = SureMeter()
    output = model.generate(
        **inputs, do_sample=False, max_new_tokens=MAX_NEW_TOKENS, logits_processor=LogitsProcessorList([meter])
    )
    answers = output[:, inputs["input_ids"].shape[1] :].tolist()
    end = processor.tokenizer.eos_token_id
    return [row[: row.index(end) + 1] if end in row else row for row in answers], meter


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else float("nan")


def _run(model, processor, task: str, condition: str, n: int, batch: int, split: Split) -> dict[str, Any]:
    drawn = list(samples(split, task, n))
    shown = list(images_for(drawn, condition))
    grades, lengths, entropy, top = [], [], [], []
    for first in range(0, n, batch):
        some, pictures = drawn[first : first + batch], shown[first : first + batch]
        asked = [with_images(sample["messages"], images) for sample, images in zip(some, pictures, strict=True)]
        rows, meter = answer(model, processor, asked)
        for i, (sample, row) in enumerate(zip(some, rows, strict=True)):
            grades.append(grade(sample, processor.tokenizer.decode(row, skip_special_tokens=True)))
            lengths.append(len(row))
            entropy += [step[i].item() for step in meter.entropy[: len(row)]]
            top += [float(step[i].item() > 0.9) for step in meter.top[: len(row)]]
    keys = dict.fromkeys(key for g in grades for key in g)
    result = {key: _mean([g[key] for g in grades if key in g]) for key in keys}
    return {**result, "tokens": _mean(lengths), "entropy": _mean(entropy), "sure": _mean(top)}


def evaluate(
    model, processor, n: int = 100, batch: int = 25, split: Split = "test", tasks: tuple[str, ...] = TASKS
) -> dict[str, dict[str, Any]]:
    """task -> condition -> `score` and the task's own grades, `tokens`, `entropy`, `sure` (share above 0.9)."""
    return {
        task: {condition: _run(model, processor, task, condition, n, batch, split) for condition in CONDITIONS}
        for task in tasks
    }


def table(results: dict[str, dict[str, Any]]) -> str:
    """The results as markdown."""
    lines = [
        "| task | right image | blank image | other image | answer tokens | entropy (nats) | tokens with p > 0.9 |",
        "|---|---|---|---|---|---|---|",
    ]
    for task, by in results.items():
        scores = " | ".join(f"{by[condition]['score']:.3f}" for condition in CONDITIONS)
        right = by["right"]
        lines.append(f"| {task} | {scores} | {right['tokens']:.0f} | {right['entropy']:.2f} | {right['sure']:.2f} |")
    if "scene" in results:
        scene = results["scene"]["right"]
        lines.append(f"\nScenes, right image: recall {scene['recall']:.3f}, precision {scene['precision']:.3f}.")
    return "\n".join(lines)


def main(
    n: int = 100, batch: int = 25, split: Split = "test", task: str = "", dtype: str = "auto", json_file: str = ""
) -> None:
    """Evaluates the embedded default on `n` held-out images of each task (or of one task)."""
    model, processor = load_default(dtype)
    started = time.time()
    results = evaluate(model, processor, n, batch, split, (task,) if task else TASKS)
    report = {"n": n, "split": split, "dtype": str(model.dtype), "seconds": time.time() - started, "tasks": results}
    if json_file:
        write_json(Path(json_file), report)
    typer.echo(table(results))


if __name__ == "__main__":
    typer.run(main)
