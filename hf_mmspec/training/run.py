"""Makes the ViSpec drafter of the embedded default, from nothing: distil, train in two stages, measure, save.

`python -m hf_mmspec.training.run --work DIR --out DIR`. Resumable: what is in `--work` is not made again.
"""

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from hf_mmspec.demo import load_default
from hf_mmspec.modeling import ViSpecDrafter

from .acceptance import acceptance_length, measure_ranks
from .card import write_card
from .distil import Answering, Prompt, distil, estimate_bytes, known_answers
from .prompts import TASKS, image_prompts, text_prompts
from .provenance import provenance
from .records import Record, load_folder, write_answers
from .trainer import Stage, TargetParts, Trainer
from .vocabulary import coverage, draft_vocabulary
from .warm_start import warm_start

app = typer.Typer(add_completion=False)
BUDGET: dict[str, Any] = {"draft_depth": 6, "draft_top_k": 8, "draft_total_tokens": 30, "draft_mode": "tree"}
TOKENS_PER_RECORD = 330  # of a prompt with its image and answer: for the size estimate


@dataclass(frozen=True)
class Part:
    """One part of the training data: a folder name, its prompts, how they are answered."""

    name: str
    prompts: Iterable[Prompt]
    count: int
    how: Answering


def training_parts(greedy: int, drawn: int, text: int, batch_size: int) -> list[Part]:
    """`greedy` and `drawn` answers for each image task (different prompts), `text` answers without images."""
    parts = [
        Part("train-text", text_prompts("train", text), text, Answering(0.7, 160, batch_size)),
        *(
            Part(f"train-{task}", image_prompts("train", task, greedy), greedy, Answering(0.0, 220, batch_size))
            for task in TASKS
        ),
        *(
            Part(
                f"train-{task}-drawn",
                image_prompts("train", task, drawn, start=greedy),
                drawn,
                Answering(0.8, 220, batch_size),
            )
            for task in TASKS
        ),
    ]
    return [part for part in parts if part.count]


def validation_parts(n: int, batch_size: int) -> list[Part]:
    """Held-out greedy answers of every task."""
    return [Part(f"val-{task}", image_prompts("val", task, n), n, Answering(0.0, 220, batch_size)) for task in TASKS]


def answer_all(model, processor, parts: list[Part], work: Path, answers: Path | None = None) -> None:
    """Distil what is missing, with the disk space it takes announced first; `answers` are not decoded again."""
    known = known_answers(answers) if answers is not None else {}
    count = sum(part.count for part in parts)
    size = estimate_bytes(model, count, TOKENS_PER_RECORD)
    print(f"{count} answers, about {size / 1e9:.2f} GB in {work}", flush=True)
    for part in parts:
        done = 0
        for records in distil(model, processor, part.prompts, work / part.name, part.how, known):
            done += len(records)
            print(f"{part.name}: {done} of {part.count}", flush=True)


def load_parts(parts: list[Part], work: Path) -> list[Record]:
    """All records of these parts."""
    return [record for part in parts for record in load_folder(work / part.name)]


def stages(epochs: float, text_epochs: float, unroll: int, learning_rate: float) -> tuple[Stage, Stage]:
    """Stage 1 on text alone, stage 2 with images (ViSpec, section 3.4), both unrolled."""
    return (
        Stage("text", text_epochs, learning_rate=learning_rate, unroll=min(unroll, 2)),
        Stage("multimodal", epochs, learning_rate=learning_rate, unroll=unroll),
    )


@dataclass(frozen=True)
class Bench:
    """The target, and the held-out data on which drafters of it are compared."""

    model: Any
    processor: Any
    records: list[Record]
    prompts: list[Prompt]

    def lengths(self, drafter: ViSpecDrafter) -> dict[str, float]:
        """True acceptance lengths, through `generate`."""
        return acceptance_length(self.model, self.processor, drafter, self.prompts, **BUDGET)

    def validate(self, drafter: ViSpecDrafter, parts: TargetParts) -> float:
        """L over all tasks in the dtype of serving; prints more."""
        lengths = self.lengths(copy.deepcopy(drafter).to(self.model.dtype))
        ranks = measure_ranks(drafter, parts, self.records[:: max(len(self.records) // 32, 1)])
        print(f"L {lengths} chain {ranks.chain:.3f} by depth {ranks.by_depth}", flush=True)
        return lengths["all"]


def untrained(bench: Bench, records: list[Record], vocabulary: int, intermediate_size: int) -> ViSpecDrafter:
    """A drafter of the target with a vocabulary made from the training answers."""
    torch.manual_seed(0)
    vocab_size = bench.model.config.get_text_config().vocab_size
    token_ids = draft_vocabulary(records, at_least=vocabulary, at_most=vocabulary, vocab_size=vocab_size)
    print(
        f"{len(token_ids)} draft tokens cover {coverage(bench.records, token_ids):.4f} of held-out answers", flush=True
    )
    return ViSpecDrafter.from_target(
        bench.model,
        draft_token_ids=token_ids,
        intermediate_size=intermediate_size,
        real_vocab_size=len(bench.processor.tokenizer),
    ).float()


def save(bench: Bench, drafter: ViSpecDrafter, parts: TargetParts, out: Path, records: int) -> None:
    """Measure on all held-out data and write the Hub-ready folder, weights in bfloat16."""
    ranks = measure_ranks(drafter, parts, bench.records)
    drafter.config.acceptance_by_depth, drafter.config.acceptance_by_rank = ranks.by_depth, ranks.by_rank
    drafter.to(torch.bfloat16).save_pretrained(out)
    budget = "a tree of depth {draft_depth}, {draft_top_k} children, {draft_total_tokens} nodes".format(**BUDGET)
    write_card(out, drafter, bench.lengths(drafter), ranks, records, provenance(), budget)


@app.command()
def main(
    work: Annotated[Path, typer.Option(help="Records and checkpoints, a few GB; kept, so that a run can go on.")],
    out: Annotated[Path, typer.Option(help="Where the drafter goes.")],
    greedy: Annotated[int, typer.Option(help="Greedy answers for each image task.")] = 800,
    drawn: Annotated[int, typer.Option(help="Drawn answers for each image task.")] = 200,
    text: Annotated[int, typer.Option(help="Answers to questions without an image.")] = 192,
    val: Annotated[int, typer.Option(help="Validation answers for each task.")] = 32,
    epochs: Annotated[float, typer.Option(help="Passes of stage 2.")] = 6,
    text_epochs: Annotated[float, typer.Option(help="Passes of stage 1.")] = 1,
    unroll: Annotated[int, typer.Option(help="Unrolled passes of stage 2.")] = 3,
    learning_rate: Annotated[float, typer.Option(help="Peak learning rate.")] = 3e-4,
    intermediate_size: Annotated[int, typer.Option(help="Width of the drafter's MLP.")] = 1536,
    vocabulary: Annotated[int, typer.Option(help="Size of the draft vocabulary.")] = 2048,
    batch_size: Annotated[int, typer.Option(help="Answers made at once.")] = 32,
    validate_every: Annotated[int, typer.Option(help="Training steps between validations.")] = 200,
    answers: Annotated[
        Path | None, typer.Option(help="An answers.jsonl of this target: it is read with one forward each.")
    ] = None,
) -> None:
    """Distil, train, measure and save the drafter."""
    model, processor = load_default()
    train, held_out = training_parts(greedy, drawn, text, batch_size), validation_parts(val, batch_size)
    answer_all(model, processor, [*held_out, *train], work, answers)
    records, val_records = load_parts(train, work), load_parts(held_out, work)
    write_answers(work / "answers.jsonl", records)
    bench = Bench(
        model, processor, val_records, [p for task in TASKS for p in image_prompts("val", task, 3, start=val)]
    )

    drafter = untrained(bench, records, vocabulary, intermediate_size)
    parts = TargetParts.of(model, drafter)
    warm_start(drafter, parts, records)
    trainer = Trainer(
        drafter,
        parts,
        work / "checkpoints",
        lambda candidate: bench.validate(candidate, parts),
        validate_every,
        autocast=torch.bfloat16,
    )
    text_stage, image_stage = stages(epochs, text_epochs, unroll, learning_rate)
    trainer.fit(text_stage, [record.without_images() for record in records])
    trainer.fit(image_stage, records, seed=100)
    save(bench, drafter.eval(), parts, out, len(records))


if __name__ == "__main__":
    app()
