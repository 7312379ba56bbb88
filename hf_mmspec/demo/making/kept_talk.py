"""Has the target kept SmolLM2's own way of talking? KL divergence and agreement on answers that SmolLM2 itself gave.

`python -m hf_mmspec.demo.making.kept_talk --folder FOLDER [--weights FILE]`; questions of the validation split. Its
border: a measurement; nothing is trained.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch.nn.functional import log_softmax

from ..model.base_model import find_gguf, load_base
from ..model.merge import build_target
from ..model.processor import build_tokenizer
from ..model.weights import WEIGHTS, read_weights
from .lessons import Lesson, talk_lesson
from .stage_tasks import Learner, answer_logits, base_log_probs
from .teacher import collect_talks, read_talks


@torch.inference_mode()
def compare(learner: Learner, lessons: list[Lesson]) -> dict[str, float]:
    """Means over all tokens of the talks: `kl` (nats, base to target), `agreement` of the most probable token, and
    both entropies."""
    kl, same, ours, theirs = [], [], [], []
    for each in lessons:
        logits, _ = answer_logits(learner, [each])
        mine, base = log_softmax(logits, -1), base_log_probs(learner.base, [each])
        kl.append((base.exp() * (base - mine)).sum(-1))
        same.append((mine.argmax(-1) == base.argmax(-1)).float())
        ours.append(-(mine.exp() * mine).sum(-1))
        theirs.append(-(base.exp() * base).sum(-1))
    parts = {"kl": kl, "agreement": same, "entropy": ours, "base_entropy": theirs}
    return {name: torch.cat(values).mean().item() for name, values in parts.items()}


def measure(folder: Path, weights: Path, count: int) -> dict[str, Any]:
    """The comparison for talks without and with a picture; the base's answers are kept in `folder`."""
    gguf = find_gguf()
    base, tokenizer = load_base(gguf, torch.bfloat16), build_tokenizer(gguf)
    folder.mkdir(parents=True, exist_ok=True)
    collect_talks(base, tokenizer, "val", count, folder / "talks-val.jsonl")
    target = build_target(load_base(gguf), *read_weights(weights)).to(torch.bfloat16)
    learner = Learner(target, {}, base, tokenizer, torch.ones(1))
    talks = read_talks(folder / "talks-val.jsonl")[:count]
    lessons = {
        "text": [talk_lesson(tokenizer, talk, "val") for talk in talks if talk.scene is None],
        "picture": [talk_lesson(tokenizer, talk, "val") for talk in talks if talk.scene is not None],
    }
    return {name: compare(learner, some) for name, some in lessons.items() if some}


def main(
    folder: Annotated[Path, typer.Option(help="where the base's answers are kept")],
    weights: Annotated[Path, typer.Option(help="weights of the embedded default")] = WEIGHTS,
    count: Annotated[int, typer.Option(help="talks, every other one about a picture")] = 48,
) -> None:
    """Compares the target with the untouched SmolLM2 on SmolLM2's own answers."""
    typer.echo(json.dumps(measure(folder, weights, count), indent=1))


if __name__ == "__main__":
    typer.run(main)
