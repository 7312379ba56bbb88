"""What a training works with: the records that it learns from and is measured on, and the judge.

Takes answers that fit (`checks.py`); trains nothing.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from .answers.store import AnswerSet
from .checks import OtherTargetError
from .drafters import layers_of
from .features.reading import Reader
from .features.record import Record
from .features.source import RecordSource
from .held_out import split_off
from .judging.acceptance import BUDGET, AcceptanceJudge
from .learning.trainer import records_at_once
from .processes import processes
from .run import Run


def sources(
    run: Run,
    model: Any,
    processor: Any,
    answers: Sequence[AnswerSet],
    validation: Sequence[AnswerSet],
) -> tuple[RecordSource, RecordSource]:
    """Records to train on and to measure on.

    Raises:
        NoRecordsError: nothing can be learned from them, or states are not stored that are asked for.
        OtherTargetError: too few to hold some out.
        PictureError: some of their pictures are gone.
    """
    reader = Reader(model, processor, layers_of(run.recipe, model), kv_layer=run.recipe.kv_layer)
    everything = RecordSource.open(answers, reader, run.features, run.max_length)
    if validation:
        training, held_out = everything, RecordSource.open(validation, reader, "auto", run.max_length)
    else:
        training, held_out = _parted(run, everything)
    if not training.is_stored or any(stage.on_policy for stage in run.recipe.stages):
        training.insist_on_pictures()
    if not held_out.is_stored:
        held_out.insist_on_pictures()
    return training, held_out


def _parted(run: Run, everything: RecordSource) -> tuple[RecordSource, RecordSource]:
    """To train on, and held out."""
    prompts, tasks = everything.prompts(), everything.column("task")
    chosen = split_off(prompts, tasks, run.held_out)
    if not chosen[1]:  # a third of one or two prompts is none: tasks so small are taken as one
        chosen = split_off(prompts, ["all"] * len(tasks), run.held_out)
    if not all(chosen):
        raise OtherTargetError(
            f"{len(everything)} answers are too few to hold {run.held_out} prompts out: distil more, or give --val"
        )
    return everything.only(chosen[0]), everything.only(chosen[1])


def make_judge(run: Run, model: Any, processor: Any, held_out: RecordSource) -> AcceptanceJudge:
    """L on the held-out prompts, shared by all processes.

    Raises:
        OtherPromptError, PictureError: the processor or the pictures are not those of the distillation.
    """
    state = processes()
    count = min(run.held_out, len(held_out))
    asked = held_out.answered([number * len(held_out) // count for number in range(count)])
    held_out.reader.insist_on_same_prompts(asked)
    conversations = [each.conversation for each in asked]
    return AcceptanceJudge(
        model, processor, conversations, run.max_new_tokens, state.process_index, state.num_processes, dict(BUDGET)
    )


def in_batches(run: Run, source: RecordSource) -> Iterator[list[Record]]:
    """All records, as many at a time as a step of the last stage reads at once: what fits into memory there fits here
    too."""
    size = records_at_once(run.recipe.stages[-1], processes().num_processes, run.accumulate)
    for start in range(0, len(source), size):
        yield source.records(range(start, min(start + size, len(source))))
