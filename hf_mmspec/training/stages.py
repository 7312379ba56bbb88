"""The stages of a training, one after the other: what is done is taken, what was interrupted goes on.

Knows how a stage is trained and what it gives; where drafter, target and records come from is `train.py`'s.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from hf_mmspec.auto import AutoDrafter
from hf_mmspec.modeling import Drafter

from .checks import entries_of
from .features.source import RecordSource
from .judging.acceptance import AcceptanceJudge
from .learning.batches import BatchMaker
from .learning.drafter_with_loss import DrafterWithLoss
from .learning.order import steps_of, training_order
from .learning.start_from import start_from
from .learning.target_parts import TargetParts
from .learning.trainer import SECONDS, TERM, DrafterTrainer, last_checkpoint, training_arguments
from .learning.warm_start import warm_start
from .material import in_batches
from .processes import processes
from .run import Run


@dataclass(frozen=True)
class Training:
    """All that a stage needs besides itself.

    Args:
        run: recipe and folders.
        drafter: gets its weights here.
        parts: what it learns from of the target.
        records: to learn from.
        judge: says how good the drafter is.
        say: told what happens, a line at a time.
    """

    run: Run
    drafter: Drafter
    parts: TargetParts
    records: RecordSource
    judge: AcceptanceJudge
    say: Callable[[str], None]


class Trained(NamedTuple):
    """What the judge said of a stage's best weights, the loss and its terms that were logged last, and the steps with
    their seconds."""

    results: dict[str, float]
    losses: dict[str, float]
    effort: dict[str, float]


def run_stages(training: Training) -> dict[str, Any]:
    """Train what is not trained yet; the drafter gets the best weights of the last stage.

    Returns:
        For `training.json`: `results` of the last stage, `losses` and `effort` of all whose checkpoints are there.
    """
    run, stages = training.run, training.run.recipe.stages
    begun = [last_checkpoint(run.stage_folder(number)) for number in range(len(stages))]
    if not any(begun):
        begin(training)
    latest = max((number for number, checkpoint in enumerate(begun) if checkpoint), default=0)
    done: dict[str, Trained] = {}
    for number, stage in enumerate(stages):
        if number < latest and begun[number] is None:
            training.say(f"stage {stage.name!r}: its checkpoints are gone, and not needed: a later stage has begun")
        else:
            done[stage.name] = run_stage(training, number)
    return {
        "results": done[stages[-1].name].results,
        "losses": {name: each.losses for name, each in done.items()},
        "effort": {name: each.effort for name, each in done.items()},
    }


def begin(training: Training) -> None:
    """Give an untrained drafter its first weights, where the run or its recipe says which."""
    run, drafter = training.run, training.drafter
    if run.start is not None:
        share = start_from(drafter, AutoDrafter.from_pretrained(run.start))
        training.say(f"{share:.0%} of the weights from {run.start}: {training.judge(drafter)}")
    elif run.recipe.closed_form_start:
        module = DrafterWithLoss(drafter, training.parts, run.recipe.stages[0])
        warm_start(module, in_batches(run, training.records))
        training.say(f"closed-form start: {training.judge(drafter)}")


def run_stage(training: Training, number: int) -> Trained:
    """Train one stage, or finish it, or take its result where it is done; the drafter gets its best weights."""
    run, records = training.run, training.records
    stage, seed, folder = run.recipe.stages[number], run.recipe.seed + number, run.stage_folder(number)
    entries = entries_of(records)
    picks = training_order(stage, entries, seed)
    steps = steps_of(stage, entries)
    settings = {"processes": processes().num_processes, **run.trainer}
    arguments = training_arguments(stage, folder, steps, run.recipe.evaluations, seed, run.accumulate, **settings)
    module = DrafterWithLoss(training.drafter, training.parts, stage)
    batches = BatchMaker(records, module)
    trainer = DrafterTrainer(module, arguments, picks, batches, training.judge, run.save_minutes)
    checkpoint = last_checkpoint(folder)
    training.say(
        f"stage {stage.name!r}: {len(picks) // stage.batch_size} steps of {stage.batch_size} records, {stage.unroll} "
        "passes" + (f", from {checkpoint}" if checkpoint else "")
    )
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    return _told_by(trainer)


def _told_by(trainer: DrafterTrainer) -> Trained:
    history = trainer.state.log_history
    best = max((each for each in history if "eval_acceptance_length" in each), key=_length)
    last: dict[str, float] = next((each for each in reversed(history) if "loss" in each), {})
    return Trained(
        {name.removeprefix("eval_"): value for name, value in best.items() if name.startswith("eval_acceptance")},
        {name: value for name, value in last.items() if name == "loss" or name.startswith(TERM)},
        {"steps": trainer.state.global_step, "seconds": sum(each.get(SECONDS, 0.0) for each in history)},
    )


def _length(entry: dict[str, float]) -> float:
    return entry["eval_acceptance_length"]
