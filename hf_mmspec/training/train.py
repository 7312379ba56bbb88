"""`mmspec train`: from a target and its answers to a drafter's folder. Each step is one line of `train`.

Decides the order of things; every step is elsewhere.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import set_seed

from hf_mmspec.hub.names import public_name
from hf_mmspec.modeling import Drafter
from hf_mmspec.quantise import quantisation_of

from .answers.store import AnswerSet
from .checks import insist_on_stages, insist_on_target, insist_on_work
from .disk import full_disk_explained
from .distil import no_words
from .drafters import untrained
from .features.source import RecordSource
from .judging.ranks import measure_ranks
from .learning.drafter_with_loss import DrafterWithLoss
from .learning.target_parts import TargetParts
from .material import in_batches, make_judge, sources
from .processes import processes
from .result.folder import insist_on_place, save_result
from .result.provenance import provenance
from .run import Run
from .stages import Training, run_stages
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
    trained = run_stages(Training(run, drafter, parts, training, judge, say))
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


def finish(run: Run, drafter: Drafter, parts: TargetParts, held_out: RecordSource, made_by: dict[str, Any]) -> None:
    """Measure the ranks of the target's tokens, and write the drafter's folder."""
    module = DrafterWithLoss(drafter.eval(), parts, run.recipe.stages[-1])
    ranks = measure_ranks(module, in_batches(run, held_out))
    with full_disk_explained(run.out.parent):
        save_result(run.out, drafter, ranks, made_by)
