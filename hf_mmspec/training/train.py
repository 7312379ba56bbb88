"""`mmspec train`: from a target and its answers to a drafter's folder. Each step is one line of `train`.

Decides the order of things; every step is elsewhere.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import set_seed

from hf_mmspec.auto import AutoDrafter
from hf_mmspec.hub.names import public_name
from hf_mmspec.modeling import Drafter
from hf_mmspec.quantise import quantisation_of

from .answers.store import AnswerSet
from .checks import entries_of, insist_on_stages, insist_on_target, insist_on_work
from .disk import full_disk_explained
from .distil import no_words
from .drafters import untrained
from .features.source import RecordSource
from .judging.acceptance import AcceptanceJudge
from .judging.ranks import measure_ranks
from .learning.batches import BatchMaker
from .learning.drafter_with_loss import DrafterWithLoss
from .learning.order import steps_of, training_order
from .learning.start_from import start_from
from .learning.target_parts import TargetParts
from .learning.trainer import SECONDS, TERM, DrafterTrainer, last_checkpoint, training_arguments
from .learning.warm_start import warm_start
from .material import in_batches, make_judge, sources
from .processes import processes
from .recipes.stage import Stage
from .result.folder import insist_on_place, save_result
from .result.provenance import provenance
from .run import Run
from .telling import data_facts, describe, other_names, other_weights


def train(
    run: Run,
    model: Any,
    processor: Any,
    answers: Sequence[AnswerSet],
    validation: Sequence[AnswerSet] = (),
    say: Callable[[str], None] = print,
) -> Path:
    """Train a drafter of `model` on its `answers`; returns its folder.

    Args:
        model, processor: the target, left as it was.
        validation: answers to prompts to measure on, never trained on; without any, some of `answers` are held out.
        say: told what happens, a line at a time, by the main process.

    Raises:
        ValueError: answers, recipe, target or folders do not fit (`OtherTargetError`, `RecipeError`, `NoRecordsError`,
            `AnswerStoreError`, `FolderInUseError`), before anything is trained.
    """
    insist_on_place(run.out)
    insist_on_target(model, [*answers, *validation])
    insist_on_work(run, answers, validation)
    with frozen(model):
        return _train(run, model, processor, answers, validation, say if processes().is_main_process else no_words)


def _train(
    run: Run,
    model: Any,
    processor: Any,
    answers: Sequence[AnswerSet],
    validation: Sequence[AnswerSet],
    say: Callable[[str], None],
) -> Path:
    set_seed(run.recipe.seed)
    training, held_out = sources(run, model, processor, answers, validation)
    drafter = untrained(run.recipe, model, processor, training.said())
    parts = TargetParts.of(model, drafter)
    training = training.that_say(parts.knows)
    insist_on_stages(run, training)
    judge = make_judge(run, model, processor, held_out)
    outside = describe(training, held_out, parts, say)
    for line in (*other_names(run.target, answers), *other_weights(model, answers)):
        say(line)
    trained = run_stages(run, drafter, parts, training, judge, say)
    made_by = {
        "target": public_name(run.target),
        "target_quantization": quantisation_of(model),
        "license": run.license,
        "data": [data_facts(each) for each in answers],
        "records": len(training),
        "outside": outside,
        "start": None if run.start is None else public_name(run.start),
        "recipe": run.recipe.as_dict(),
        **trained,
        "held_out": {"prompts": len(judge.conversations), "budget": judge.budget},
        "provenance": provenance(),
    }
    if processes().is_main_process:
        finish(run, drafter, parts, held_out, made_by)
    processes().wait_for_everyone()
    return run.out


@contextmanager
def frozen(model: Any) -> Iterator[None]:
    """The target without gradients and dropout inside the `with` block; behind it, it is as it was."""
    learning = [each for each in model.parameters() if each.requires_grad]
    in_training = [each for each in model.modules() if each.training]
    try:
        model.requires_grad_(False).eval()
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)
        for module in in_training:
            module.training = True


def begin(
    run: Run,
    drafter: Drafter,
    parts: TargetParts,
    training: RecordSource,
    judge: AcceptanceJudge,
    say: Callable[[str], None],
) -> None:
    """Give an untrained drafter its first weights, where the run or its recipe says which."""
    if run.start is not None:
        share = start_from(drafter, AutoDrafter.from_pretrained(run.start))
        say(f"{share:.0%} of the weights from {run.start}: {judge(drafter)}")
    elif run.recipe.closed_form_start:
        warm_start(DrafterWithLoss(drafter, parts, run.recipe.stages[0]), in_batches(run, training))
        say(f"closed-form start: {judge(drafter)}")


def run_stages(
    run: Run,
    drafter: Drafter,
    parts: TargetParts,
    training: RecordSource,
    judge: AcceptanceJudge,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Train what is not trained yet; `drafter` gets the best weights of the last stage.

    Returns:
        For `training.json`: `results` of the last stage, `losses` and `effort` of all whose checkpoints are there.
    """
    stages = run.recipe.stages
    begun = [last_checkpoint(run.stage_folder(number)) for number in range(len(stages))]
    if not any(begun):
        begin(run, drafter, parts, training, judge, say)
    latest = max((number for number, checkpoint in enumerate(begun) if checkpoint), default=0)
    found: dict[str, Any] = {"results": {}, "losses": {}, "effort": {}}
    for number, stage in enumerate(stages):
        if number < latest and begun[number] is None:
            say(f"stage {stage.name!r}: its checkpoints are gone, and not needed: a later stage has begun")
            continue
        results, loss, effort = run_stage(run, number, drafter, parts, training, judge, say)
        found["results"] = results
        found["losses"][stage.name], found["effort"][stage.name] = loss, effort
    return found


def run_stage(
    run: Run,
    number: int,
    drafter: Drafter,
    parts: TargetParts,
    training: RecordSource,
    judge: AcceptanceJudge,
    say: Callable[[str], None],
) -> tuple[dict[str, float], dict[str, float], dict[str, float]]:
    """Train one stage, or finish it, or take its result where it is done; `drafter` gets its best weights.

    Returns:
        What the judge said of these, the loss and its terms that were logged last, and steps with their seconds.
    """
    stage = run.recipe.stages[number]
    entries = entries_of(training)
    picks = training_order(stage, entries, run.recipe.seed + number)
    folder = run.stage_folder(number)
    arguments = training_arguments(
        stage,
        folder,
        steps_of(stage, entries),
        run.recipe.evaluations,
        run.recipe.seed + number,
        run.accumulate,
        **{"processes": processes().num_processes, **run.trainer},
    )
    module = DrafterWithLoss(drafter, parts, stage)
    trainer = DrafterTrainer(module, arguments, picks, BatchMaker(training, module), judge, run.save_minutes)
    checkpoint = last_checkpoint(folder)
    say(f"stage {stage.name!r}: {arguments_text(stage, len(picks))}" + (f", from {checkpoint}" if checkpoint else ""))
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    history = trainer.state.log_history
    best = max((e for e in history if "eval_acceptance_length" in e), key=_length)
    last: dict[str, float] = next((e for e in reversed(history) if "loss" in e), {})
    return (
        {name.removeprefix("eval_"): value for name, value in best.items() if name.startswith("eval_acceptance")},
        {name: value for name, value in last.items() if name == "loss" or name.startswith(TERM)},
        {"steps": trainer.state.global_step, "seconds": sum(entry.get(SECONDS, 0.0) for entry in history)},
    )


def arguments_text(stage: Stage, picks: int) -> str:
    """A stage in a few words."""
    return f"{picks // stage.batch_size} steps of {stage.batch_size} records, {stage.unroll} passes"


def finish(run: Run, drafter: Drafter, parts: TargetParts, held_out: RecordSource, made_by: dict[str, Any]) -> None:
    """Measure the ranks of the target's tokens, and write the drafter's folder."""
    module = DrafterWithLoss(drafter.eval(), parts, run.recipe.stages[-1])
    ranks = measure_ranks(module, in_batches(run, held_out))
    with full_disk_explained(run.out.parent):
        save_result(run.out, drafter, ranks, made_by)


def _length(entry: dict[str, float]) -> float:
    return entry["eval_acceptance_length"]
