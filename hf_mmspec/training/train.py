"""`mmspec train`: from a target and its answers to a drafter's folder. Each step is one line of `train`.

Decides the order of things; every step is elsewhere.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from transformers import set_seed

from hf_mmspec.hub.names import public_name
from hf_mmspec.modeling import FAMILIES, Drafter
from hf_mmspec.modeling.binding import find_head, fingerprint, similar, unwrap

from .answers.store import AnswerSet, write_json
from .disk import full_disk_explained
from .distil import no_words
from .features.reading import Reader
from .features.source import RecordSource, Where
from .held_out import split_off
from .judging.acceptance import BUDGET, AcceptanceJudge
from .judging.ranks import measure_ranks
from .learning.batches import BatchMaker
from .learning.drafter_with_loss import DrafterWithLoss
from .learning.losses import FEATURE_REGRESSION
from .learning.order import Entry, steps_of, training_order
from .learning.target_parts import TargetParts
from .learning.trainer import DrafterTrainer, last_checkpoint, records_at_once, training_arguments
from .learning.vocabulary import draft_vocabulary
from .learning.warm_start import warm_start
from .recipes.recipe import Recipe, RecipeError, Stage
from .result.folder import insist_on_place, save_result
from .result.provenance import provenance

_WARM_START_BATCH = 32


class OtherTargetError(ValueError):
    """The answers are another model's."""


@dataclass(frozen=True)
class Run:
    """What a training is asked for.

    Args:
        recipe: how.
        out: the drafter's folder.
        work: for checkpoints and logs; what is in there is not done again.
        target: how users of the drafter name its target.
        max_length: answers are cut behind so many tokens; None for the target's own limit.
        features: `"stored"`, `"live"`, or `"auto"`: from disk where they are there.
        held_out: prompts to measure on, where `validation` gives none.
        max_new_tokens: of the answers that L is measured on.
        accumulate: parts that a step's records are read in.
        save_minutes: between checkpoints.
        trainer: further or other `TrainingArguments`.
    """

    recipe: Recipe
    out: Path
    work: Path
    target: str
    max_length: int | None = None
    features: Where = "auto"
    held_out: int = 12
    max_new_tokens: int = 200
    accumulate: int = 1
    save_minutes: float = 10.0
    trainer: dict[str, Any] = field(default_factory=dict)


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
        return _train(run, model, processor, answers, validation, say if PartialState().is_main_process else no_words)


def _train(
    run: Run,
    model: Any,
    processor: Any,
    answers: Sequence[AnswerSet],
    validation: Sequence[AnswerSet],
    say: Callable[[str], None],
) -> Path:
    set_seed(run.recipe.seed)
    drafter = untrained(run.recipe, model, processor, answers)
    parts = TargetParts.of(model, drafter)
    training, held_out = sources(run, model, processor, drafter, answers, validation)
    training = training.that_say(parts.knows)
    insist_on_stages(run, training)
    judge = make_judge(run, model, processor, held_out)
    outside = describe(training, held_out, parts, say)
    begun = [last_checkpoint(stage_folder(run, number)) for number in range(len(run.recipe.stages))]
    if run.recipe.closed_form_start and not any(begun):
        warm_start(DrafterWithLoss(drafter, parts, run.recipe.stages[0]), in_batches(training))
        say(f"closed-form start: {judge(drafter)}")
    for number, stage in enumerate(run.recipe.stages):
        results = run_stage(run, stage, number, drafter, parts, training, judge, say)
    state = PartialState()
    if state.is_main_process:
        module = DrafterWithLoss(drafter.eval(), parts, run.recipe.stages[-1])
        ranks = measure_ranks(module, held_out.records(range(len(held_out))))
        made_by = {
            "target": public_name(run.target),
            "data": [data_facts(each) for each in answers],
            "records": len(training),
            "outside": outside,
            "recipe": run.recipe.as_dict(),
            "results": results,
            "held_out": {"prompts": len(judge.conversations), "budget": judge.budget},
            "provenance": provenance(),
        }
        with full_disk_explained(run.out.parent):
            save_result(run.out, drafter, ranks, made_by)
    state.wait_for_everyone()
    return run.out


def insist_on_target(model: Any, answers: Sequence[AnswerSet]) -> None:
    """Raises OtherTargetError where the answers are those of other weights."""
    found = fingerprint(unwrap(model).get_input_embeddings(), find_head(model))
    for each in answers:
        expected = each.manifest["target_fingerprint"]
        if any(part in found and not similar(expected[part], found[part]) for part in expected):
            raise OtherTargetError(
                f"{each.folder}: these are answers of {each.manifest['model']}, whose weights are not those of the "
                "model that is given: give the same --model, or distil again with this one"
            )


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


def insist_on_work(run: Run, answers: Sequence[AnswerSet], validation: Sequence[AnswerSet] = ()) -> None:
    """Begin a folder of checkpoints, or go on in one.

    Raises:
        OtherTargetError: it belongs to another recipe or other answers, or cannot be read.
    """
    file = run.work / "run.json"
    asked = {
        "recipe": run.recipe.as_dict(),
        "data": [each.fingerprint for each in answers],
        "validation": [each.fingerprint for each in validation],
        "held_out": run.held_out,
        "max_length": run.max_length,
    }
    if file.exists():
        try:
            found = json.loads(file.read_text())
        except ValueError as error:
            raise OtherTargetError(f"{file}: damaged ({error}): give another --work folder") from error
        other = sorted(key for key in asked if not isinstance(found, dict) or found.get(key) != asked[key])
        if other:
            raise OtherTargetError(
                f"{run.work} has checkpoints of another training ({', '.join(other)} differ): give another --work "
                "folder, or the options of the first run"
            )
    elif any(run.work.glob("*/checkpoint-*")):
        raise OtherTargetError(f"{run.work} has checkpoints, but {file.name} is missing: give another --work folder")
    elif PartialState().is_main_process:
        run.work.mkdir(parents=True, exist_ok=True)
        write_json(file, asked)
    PartialState().wait_for_everyone()


def untrained(recipe: Recipe, model: Any, processor: Any, answers: Sequence[AnswerSet]) -> Drafter:
    """A drafter of the target, in float32, with the draft vocabulary of its answers where the recipe asks for one."""
    fields = dict(recipe.drafter)
    vocab_size = unwrap(model).config.get_text_config(decoder=True).vocab_size
    token_ids = None
    width = unwrap(model).config.get_text_config(decoder=True).hidden_size
    if fields.get("hidden_size", width) != width and any(FEATURE_REGRESSION in stage.loss for stage in recipe.stages):
        raise RecipeError(
            f"a drafter of width {fields['hidden_size']} has no states to compare with those of a target of {width}: "
            f"leave {FEATURE_REGRESSION} out of the loss"
        )
    if fields.get("draft_vocab_size"):
        rows = (row for each in answers for row in each.rows.select_columns(["input_ids", "prompt_length"]))
        said = (row["input_ids"][row["prompt_length"] :] for row in rows)
        token_ids = draft_vocabulary(said, min(fields.pop("draft_vocab_size"), vocab_size), vocab_size)
    fields.setdefault("real_vocab_size", min(len(processor.tokenizer), vocab_size))
    return FAMILIES[recipe.family][1].from_target(model, token_ids, **fields).float()


def sources(
    run: Run,
    model: Any,
    processor: Any,
    drafter: Drafter,
    answers: Sequence[AnswerSet],
    validation: Sequence[AnswerSet],
) -> tuple[RecordSource, RecordSource]:
    """Records to train on and to measure on."""
    reader = Reader(model, processor, drafter.feature_layers_of(model))
    everything = RecordSource.open(answers, reader, run.features, run.max_length)
    if validation:
        return everything, RecordSource.open(validation, reader, "auto", run.max_length)
    chosen = split_off(everything.column("key"), everything.column("task"), run.held_out)
    if not all(chosen):
        raise OtherTargetError(
            f"{len(everything)} answers are too few to hold {run.held_out} prompts out: distil more, or give --val"
        )
    return everything.only(chosen[0]), everything.only(chosen[1])


def insist_on_stages(run: Run, training: RecordSource) -> None:
    """Plan a step of every stage, so that none fails behind the training of another.

    Raises:
        ValueError: the data has not what a stage asks for, or its batch cannot be shared evenly.
    """
    entries = entries_of(training)
    for stage in run.recipe.stages:
        records_at_once(stage, PartialState().num_processes, run.accumulate)
        training_order(replace(stage, epochs=0.0), entries, 0)


def make_judge(run: Run, model: Any, processor: Any, held_out: RecordSource) -> AcceptanceJudge:
    """L on the held-out prompts, shared by all processes.

    Raises:
        OtherPromptError, PictureError: the processor or the pictures are not those of the distillation.
    """
    state = PartialState()
    asked = held_out.answered(range(0, len(held_out), max(len(held_out) // run.held_out, 1)))
    held_out.reader.insist_on_same_prompts(asked)
    conversations = [each.conversation for each in asked]
    return AcceptanceJudge(
        model, processor, conversations, run.max_new_tokens, state.process_index, state.num_processes, dict(BUDGET)
    )


def describe(training: RecordSource, held_out: RecordSource, parts: TargetParts, say: Callable[[str], None]) -> float:
    """Say what is trained on; returns the share of answer tokens outside of the draft vocabulary."""
    for reason, count in training.dropped.most_common():
        say(f"{count} answers are left out: {reason}")
    ids, prompts = (
        [row[: training.max_length] for row in training.column("input_ids")],
        training.column("prompt_length"),
    )
    said = torch.cat([torch.tensor(row[prompt:]) for row, prompt in zip(ids, prompts, strict=True)])
    outside = 1 - parts.knows(said).float().mean().item()
    total = sum(map(len, ids))
    where = (
        f"from disk, {training.bytes_per_token} bytes each" if training.is_stored else "read on the fly, none stored"
    )
    say(f"{len(training)} answers, {len(said)} tokens of {total} supervised ({len(said) / total:.0%}); states {where}")
    say(f"{len(held_out)} answers held out; {outside:.2%} of the tokens are outside the draft vocabulary")
    return outside


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
) -> dict[str, float]:
    """Train one stage, or finish it, or take its result where it is done; `drafter` gets its best weights.

    Returns:
        What the judge said of these.
    """
    entries = entries_of(training)
    picks = training_order(stage, entries, run.recipe.seed + number)
    folder = stage_folder(run, number)
    arguments = training_arguments(
        stage,
        folder,
        steps_of(stage, entries),
        run.recipe.evaluations,
        run.recipe.seed + number,
        run.accumulate,
        **{"processes": PartialState().num_processes, **run.trainer},
    )
    module = DrafterWithLoss(drafter, parts, stage)
    trainer = DrafterTrainer(module, arguments, picks, BatchMaker(training, module), judge, run.save_minutes)
    checkpoint = last_checkpoint(folder)
    say(f"stage {stage.name!r}: {arguments_text(stage, len(picks))}" + (f", from {checkpoint}" if checkpoint else ""))
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    best = max((e for e in trainer.state.log_history if "eval_acceptance_length" in e), key=_length)
    return {name.removeprefix("eval_"): value for name, value in best.items() if name.startswith("eval_acceptance")}


def stage_folder(run: Run, number: int) -> Path:
    """For the checkpoints of a stage."""
    return run.work / f"{number}-{run.recipe.stages[number].name}"


def entries_of(training: RecordSource) -> list[Entry]:
    """Lengths with and without pictures."""
    visual = training.visual_tokens()
    return [Entry(len(ids), len(ids) - seen) for ids, seen in zip(training.column("input_ids"), visual, strict=True)]


def arguments_text(stage: Stage, picks: int) -> str:
    """A stage in a few words."""
    return f"{picks // stage.batch_size} steps of {stage.batch_size} records, {stage.unroll} passes"


def data_facts(answers: AnswerSet) -> dict[str, Any]:
    """What a card may say about the data: no paths of this machine."""
    kept = {key: answers.manifest[key] for key in ("temperature", "max_new_tokens") if key in answers.manifest}
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
