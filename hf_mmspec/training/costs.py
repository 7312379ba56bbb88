"""What distilling and training cost for larger targets: measured here on the embedded one, scaled, and so an estimate.

`python -m hf_mmspec.training.costs`. What is measured is how much of this machine's own peak (matrix products, memory
bandwidth) each step reaches; a GPU is taken to reach the same share of its peak.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Annotated, Any

import torch
import typer

from hf_mmspec.data import Source, model_inputs, open_source
from hf_mmspec.evaluation.machine import cpu_name
from hf_mmspec.evaluation.markdown import markdown_table
from hf_mmspec.modeling import ViSpecDrafter

from .answers.answering import Answering, answer_batch
from .features.reading import Reader
from .learning.collator import collate
from .learning.drafter_with_loss import DrafterWithLoss
from .learning.target_parts import TargetParts
from .recipes.recipe import family_recipe, read_recipe

_BATCH, _NEW_TOKENS = 16, 48
# NVIDIA H100 SXM: dense bfloat16 products and memory bandwidth, from its data sheet
_GPU_FLOPS, _GPU_BYTES = 989e12, 3.35e12
_PASSES = 3  # of the recipe's second stage
_BATCH_ON_GPU = 32


@dataclass(frozen=True)
class Shares:
    """Share of the machine's peak that each step reaches: reading and training of matrix products, decoding of memory
    bandwidth."""

    reading: float
    training: float
    decoding: float


@dataclass(frozen=True)
class Target:
    """A target to estimate for: parameters of its decoder and of a drafter, hidden size."""

    name: str
    parameters: float
    drafter: float
    hidden_size: int


TARGETS = (
    Target("2B", 2e9, 0.06e9, 2048),
    Target("7B", 7e9, 0.25e9, 3584),
    Target("70B", 70e9, 1.3e9, 8192),
)

HEAD = [
    "target",
    "answering",
    "reading once",
    "training",
    "in all, states stored",
    "in all, on the fly",
    "disk, states stored",
    "disk, on the fly",
]


def costs(target: Target, shares: Shares, answers: int, prompt: int, answer: int, epochs: int) -> list[str]:
    """A row of the table: hours of one GPU and room on disk for a whole training."""
    tokens, said = answers * (prompt + answer), answers * answer
    read = 2 * target.parameters * tokens / (shares.reading * _GPU_FLOPS) / 3600
    decode = 2 * target.parameters * said / _BATCH_ON_GPU / (shares.decoding * _GPU_BYTES) / 3600
    passes = 1 + (_PASSES - 1) * answer / (prompt + answer)  # unrolled passes leave the prompt out
    train = 6 * target.drafter * tokens * epochs * passes / (shares.training * _GPU_FLOPS) / 3600
    stored = 2 * target.hidden_size * tokens / 1e9
    cells = [f"{decode:.1f}", f"{read:.1f}", f"{train:.1f}", f"{decode + read + train:.1f}"]
    return [
        target.name,
        *cells,
        f"{decode + epochs * read + train:.1f}",
        f"{stored:,.0f} GB",
        f"{4 * tokens / 1e9:.1f} GB",
    ]


def measure(model: Any, processor: Any) -> tuple[Shares, dict[str, float]]:
    """Shares, and the tokens per second that they come from."""
    conversations = list(open_source(Source("embedded", limit=_BATCH)))
    how = Answering(max_new_tokens=_NEW_TOKENS)
    answered = answer_batch(model, processor, conversations, how)
    inputs = model_inputs(processor, conversations).to(model.device, model.dtype)
    prefill = seconds(lambda: model.generate(**inputs, do_sample=False, max_new_tokens=1))
    decode = seconds(
        lambda: model.generate(**inputs, do_sample=False, min_new_tokens=_NEW_TOKENS, max_new_tokens=_NEW_TOKENS)
    )
    reader = Reader(model, processor)
    read = seconds(lambda: reader.read(answered))
    records = reader.read(answered)
    drafter = ViSpecDrafter.from_target(model, draft_vocab_size=2048, intermediate_size=1536).float()
    module = DrafterWithLoss(
        drafter, TargetParts.of(model, drafter), read_recipe(family_recipe("vispec")).stages[-1]
    ).train()
    batch = collate(records)

    def step() -> None:
        with torch.autocast(model.device.type, torch.bfloat16, enabled=model.dtype == torch.bfloat16):
            loss = module(**batch)["loss"]
        loss.backward()

    train = seconds(step)
    tokens = sum(len(each.ids) for each in answered)
    answers = sum(len(each.ids) - each.prompt_length for each in answered)
    passes = 1 + (_PASSES - 1) * answers / tokens
    decoder = sum(p.numel() for p in model.get_decoder().parameters())
    flops, bandwidth = peak_flops(model.dtype), peak_bandwidth()
    step_seconds = (decode - prefill) / (_NEW_TOKENS - 1)
    rates = {"read": tokens / read, "decoded": _BATCH / step_seconds, "trained": tokens / train}
    shares = Shares(
        reading=2 * decoder * tokens / read / flops,
        training=6 * drafter.num_parameters() * tokens * passes / train / flops,
        decoding=decoder * model.dtype.itemsize / step_seconds / bandwidth,
    )
    return shares, rates


def seconds(work: Callable[[], Any], times: int = 3) -> float:
    """Median time of a call, after one to warm up."""
    work()
    took = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        took.append(time.perf_counter() - start)
    return median(took)


def peak_flops(dtype: torch.dtype, size: int = 2048) -> float:
    """Of one large matrix product."""
    a = torch.randn(size, size).to(dtype)
    return 2 * size**3 / seconds(lambda: a @ a)


def peak_bandwidth(size: int = 2**27) -> float:
    """Bytes per second of reading a large tensor once."""
    values = torch.ones(size)
    return values.nbytes / seconds(values.sum)


app = typer.Typer(add_completion=False)


@app.command()
def main(
    answers: Annotated[int, typer.Option(help="Answers of the target.")] = 68_000,
    prompt: Annotated[int, typer.Option(help="Tokens of a prompt, its picture included.")] = 1000,
    answer: Annotated[int, typer.Option(help="Tokens of an answer.")] = 500,
    epochs: Annotated[int, typer.Option(help="Passes over the answers.")] = 5,
    threads: Annotated[int | None, typer.Option(help="Of the processor.")] = None,
) -> None:
    """Measure here, and print the table."""
    from hf_mmspec.evaluation.loading import load_target

    if threads is not None:
        torch.set_num_threads(threads)
    model, processor = load_target()
    shares, rates = measure(model, processor)
    print(f"{cpu_name()}, {torch.get_num_threads()} threads, {model.dtype}, the embedded default, batch {_BATCH}:")
    print(", ".join(f"{rate:,.0f} tokens/s {name}" for name, rate in rates.items()))
    reached = {"reading": shares.reading, "training": shares.training, "decoding": shares.decoding}
    print("share of peak: " + ", ".join(f"{name} {share:.0%}" for name, share in reached.items()) + "\n")
    rows = [costs(each, shares, answers, prompt, answer, epochs) for each in TARGETS]
    print("\n".join(markdown_table(HEAD, rows)))


if __name__ == "__main__":
    app()
