"""`mmspec distil`: from a source of prompts to a folder of the target's answers.

Decides the order of things; every step is in `answers/`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from hf_mmspec.data import Source, open_source
from hf_mmspec.modeling.binding import find_head, fingerprint, unwrap
from hf_mmspec.quantise import quantisation_of

from .answers.answering import Answering
from .answers.distil import Distillation, Progress
from .answers.estimate import estimate
from .answers.known import WRITTEN, KnownAnswers, write_known
from .answers.screening import Screening
from .answers.store import AnswerSet, AnswerStore, insist_on_place
from .drafters import layers_of
from .features.reading import Reader
from .features.stored import StatesFormat
from .processes import processes
from .recipes.recipe import Recipe

KNOWN = "answers.jsonl"  # beside the data set, for the embedded prompts


@dataclass(frozen=True)
class DistilRun:
    """What a distillation is asked for.

    Args:
        source: the prompts.
        out: where answers go.
        target: how the target is called.
        how: greedy or drawn, the longest answer.
        known: a file of answers (`answers/known.py`) instead of a source; nothing is decoded then.
        keep: the recipe of the family whose hidden states are kept; None keeps token ids alone.
        keep_dtype: of these; None for the target's own.
        max_length: most tokens of prompt and answer; None for the target's own limit.
        shard_size: prompts that are answered at once.
        max_skipped: share of samples that may be left out.
    """

    source: Source
    out: Path
    target: str
    how: Answering = field(default_factory=Answering)
    known: Path | None = None
    keep: Recipe | None = None
    keep_dtype: torch.dtype | None = None
    max_length: int | None = None
    shard_size: int = 32
    max_skipped: float = 0.2
    seed: int = 0

    @cached_property
    def conversations(self) -> Any:
        """What is asked, opened once.

        Raises:
            DataError: it is not there or cannot be read.
        """
        return KnownAnswers(self.known) if self.known is not None else open_source(self.source)

    @property
    def is_embedded(self) -> bool:
        """Whether prompts come back from their seeds, so that token ids alone are worth keeping."""
        return self.known is not None or (self.source.data.split(":")[0] == "embedded" and not self.source.append)


def insist_on_run(run: DistilRun) -> None:
    """Look at source and folder before a model is loaded. Raises as `prepare` does."""
    insist_on_place(run.out)
    len(run.conversations)


def prepare(run: DistilRun, model: Any, processor: Any) -> Distillation:
    """Open the source and the folder; nothing is answered yet.

    Raises:
        ValueError: the source, the folder or the options do not fit (`DataError`, `AnswerStoreError`).
    """
    conversations = run.conversations
    text = unwrap(model).config.get_text_config(decoder=True)
    reader, kept = None, None
    if run.keep is not None:
        layers = layers_of(run.keep, model)
        dtype = run.keep_dtype or model.dtype
        reader = Reader(model, processor, layers, dtype)
        kept = StatesFormat.of(layers, dtype, text.hidden_size).as_dict()
    max_length = run.max_length or text.max_position_embeddings
    manifest = {
        "model": run.target,
        "target_fingerprint": fingerprint(unwrap(model).get_input_embeddings(), find_head(model)),
        "target_quantization": quantisation_of(model),
        "data": run.known.name if run.known is not None else run.source.data,
        "data_fingerprint": conversations.fingerprint(),
        "prompts": len(conversations),
        "temperature": run.how.temperature,
        "max_new_tokens": run.how.max_new_tokens,
        "max_length": max_length,
        "shard_size": run.shard_size,
        "seed": run.seed,
        "features": kept,
    }
    with processes().main_process_first():
        store = AnswerStore.open(run.out, manifest)
    return Distillation(
        model,
        processor,
        conversations,
        store,
        run.how,
        Screening(processor, model, max_length),
        run.shard_size,
        run.max_skipped,
        reader,
        run.seed,
    )


def distil(
    run: DistilRun,
    model: Any,
    processor: Any,
    say: Callable[[str], None] = print,
    progress: Callable[[Progress], None] = lambda _: None,
) -> Path:
    """Answer what is missing; returns the folder, which `datasets.load_from_disk` opens.

    Args:
        model, processor: the target.
        say: told what is going to happen and what was left out, a line at a time, by the main process.
        progress: told about each shard.
    """
    distillation = prepare(run, model, processor)
    if not processes().is_main_process:
        say = no_words
    say(str(estimate(distillation)))
    distillation.run(progress)
    store = distillation.store
    if processes().is_main_process and run.is_embedded:
        write_known(run.out / KNOWN, AnswerSet.load(run.out).rows.select_columns(WRITTEN))
    for reason, count in store.skipped().most_common():
        say(f"{count} samples were left out: {reason}")
    say(f"{store.answered()} answers in {run.out}")
    return run.out


def no_words(line: str) -> None:
    """Says nothing: what other processes than the main one have to say is said already."""
