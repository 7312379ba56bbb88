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
from .checks import OtherTargetError, entries_of, insist_on_stages, insist_on_target, insist_on_work
from .disk import full_disk_explained
from .distil import no_words
from .drafters import layers_of, untrained
from .features.reading import Reader
from .features.source import RecordSource
from .held_out import split_off
from .judging.acceptance import BUDGET, AcceptanceJudge
from .judging.ranks import measure_ranks
from .learning.batches import BatchMaker
from .learning.drafter_with_loss import DrafterWithLoss
from .learning.order import steps_of, training_order
from .learning.start_from import start_from
from .learning.target_parts import TargetParts
from .learning.trainer import SECONDS, TERM, DrafterTrainer, last_checkpoint, training_arguments
from .learning.warm_start import warm_start
from .processes import processes
from .recipes.recipe import Stage
from .result.folder import insist_on_place, save_result
from .result.provenance import provenance
from .run import Run

_WARM_START_BATCH = 32


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
    for line in other_weights(model, answers):
        say(line)
    begun = [last_checkpoint(run.stage_folder(number)) for number in range(len(run.recipe.stages))]
    if not any(begun):
        begin(run, drafter, parts, training, judge, say)
    losses: dict[str, dict[str, float]] = {}
    effort: dict[str, dict[str, float]] = {}
    for number, stage in enumerate(run.recipe.stages):
        results, losses[stage.name], effort[stage.name] = run_stage(
            run, stage, number, drafter, parts, training, judge, say
        )
    state = processes()
    if state.is_main_process:
        module = DrafterWithLoss(drafter.eval(), parts, run.recipe.stages[-1])
        ranks = measure_ranks(module, held_out.records(range(len(held_out))))
        made_by = {
            "target": public_name(run.target),
            "target_quantization": quantisation_of(model),
            "data": [data_facts(each) for each in answers],
            "records": len(training),
            "outside": outside,
            "start": None if run.start is None else public_name(run.start),
            "recipe": run.recipe.as_dict(),
            "results": results,
            "losses": losses,
            "effort": effort,
            "held_out": {"prompts": len(judge.conversations), "budget": judge.budget},
            "provenance": provenance(),
        }
        with full_disk_explained(run.out.parent):
            save_result(run.out, drafter, ranks, made_by)
    state.wait_for_everyone()
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


def sources(
    run: Run,
    model: Any,
    processor: Any,
    answers: Sequence[AnswerSet],
    validation: Sequence[AnswerSet],
) -> tuple[RecordSource, RecordSource]:
    """Records to train on and to measure on."""
    reader = Reader(model, processor, layers_of(run.recipe, model), kv_layer=run.recipe.kv_layer)
    everything = RecordSource.open(answers, reader, run.features, run.max_length)
    if validation:
        return everything, RecordSource.open(validation, reader, "auto", run.max_length)
    chosen = split_off(everything.column("key"), everything.column("task"), run.held_out)
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
    asked = held_out.answered(range(0, len(held_out), max(len(held_out) // max(run.held_out, 1), 1)))
    held_out.reader.insist_on_same_prompts(asked)
    conversations = [each.conversation for each in asked]
    return AcceptanceJudge(
        model, processor, conversations, run.max_new_tokens, state.process_index, state.num_processes, dict(BUDGET)
    )


def describe(training: RecordSource, held_out: RecordSource, parts: TargetParts, say: Callable[[str], None]) -> float:
    """Say what is trained on; returns the share of answer tokens outside of the draft vocabulary."""
    for reason, count in training.dropped.most_common():
        say(f"{count} answers are left out: {reason}")
    known = [(len(each), int(parts.knows(each).sum())) for each in training.said()]
    said, total = sum(length for length, _ in known), sum(length for length, _ in training.sizes())
    outside = 1 - sum(count for _, count in known) / said
    where = (
        f"from disk, {training.bytes_per_token} bytes each" if training.is_stored else "read on the fly, none stored"
    )
    say(f"{len(training)} answers, {said} tokens of {total} supervised ({said / total:.0%}); states {where}")
    say(f"{len(held_out)} answers held out; {outside:.2%} of the tokens are outside the draft vocabulary")
    return outside


def other_weights(model: Any, answers: Sequence[AnswerSet]) -> Iterator[str]:
    """A line for each set whose answers the same target gave with its weights in another form."""
    own = quantisation_of(model)
    for each in answers:
        theirs = each.manifest.get("target_quantization")
        if theirs != own:
            yield (
                f"{each.folder.name}: answers of the target {_form(theirs)}, read by it {_form(own)}: distil with "
                "this one to learn from its own words"
            )


def _form(quantisation: str | None) -> str:
    return "unquantised" if quantisation is None else f"in {quantisation}"


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
        warm_start(DrafterWithLoss(drafter, parts, run.recipe.stages[0]), in_batches(training))
        say(f"closed-form start: {judge(drafter)}")


def in_batches(source: RecordSource) -> Any:
    """All records, a list at a time."""
    for start in range(0, len(source), _WARM_START_BATCH):
        yield source.records(range(start, min(start + _WARM_START_BATCH, len(source))))


def run_stage(
    run: Run,
    stage: Stage,
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


def data_facts(answers: AnswerSet) -> dict[str, Any]:
    """What a card may say about the data: no paths of this machine."""
    told = ("temperature", "max_new_tokens", "target_quantization")
    kept = {key: answers.manifest[key] for key in told if key in answers.manifest}
    source = answers.manifest.get("data")
    return {
        "name": answers.folder.name,
        "source": None if source is None else public_name(source.partition("=")[0]),
        "fingerprint": answers.fingerprint,
        "answers": len(answers.rows),
        **kept,
    }


def _length(entry: dict[str, float]) -> float:
    return entry["eval_acceptance_length"]
