"""What has to be right before anything is trained: target, answers, folders, stages.

Raises or says nothing; loads no weights.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hf_mmspec.modeling.binding import find_head, fingerprint, similar, unwrap
from hf_mmspec.whole_file import write_json

from .answers.store import AnswerSet
from .features.source import RecordSource
from .learning.order import Entry, training_order
from .learning.trainer import records_at_once
from .processes import processes
from .recipes.recipe import RecipeError, make_recipe
from .run import Run


class OtherTargetError(ValueError):
    """The answers are another model's."""


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


def insist_on_work(run: Run, answers: Sequence[AnswerSet], validation: Sequence[AnswerSet] = ()) -> None:
    """Begin a folder of checkpoints, or go on in one. A run that left none before it failed binds nobody to its
    options.

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
        "start": run.start,
    }
    if any(run.work.glob("*/checkpoint-*")):
        _insist_on_same(file, asked)
    elif processes().is_main_process:
        write_json(file, asked)
    processes().wait_for_everyone()


def _insist_on_same(file: Path, asked: dict[str, Any]) -> None:
    """Raises OtherTargetError where the checkpoints beside `file` are not what is asked for."""
    if not file.exists():
        raise OtherTargetError(
            f"{file.parent} has checkpoints, but {file.name} is missing: give another --work folder"
        )
    try:
        found = _with_new_fields(json.loads(file.read_text()))
    except ValueError as error:
        raise OtherTargetError(f"{file}: damaged ({error}): give another --work folder") from error
    other = sorted(key for key in asked if not isinstance(found, dict) or found.get(key) != asked[key])
    if other:
        raise OtherTargetError(
            f"{file.parent} has checkpoints of another training ({', '.join(other)} differ): give another --work "
            "folder, or the options of the first run"
        )


def _with_new_fields(found: Any) -> Any:
    """What was asked for, with a recipe that has every field of today's: a field that it lacks had no effect then."""
    try:
        return {**found, "recipe": make_recipe(found["recipe"], "run.json").as_dict()}
    except (AttributeError, KeyError, TypeError, RecipeError):
        return found  # no recipe: it differs


def insist_on_stages(run: Run, training: RecordSource) -> None:
    """Plan a step of every stage, so that none fails behind the training of another.

    Raises:
        ValueError: the data has not what a stage asks for, or its batch cannot be shared evenly.
    """
    entries = entries_of(training)
    for stage in run.recipe.stages:
        records_at_once(stage, processes().num_processes, run.accumulate)
        training_order(replace(stage, epochs=0.0), entries, 0)


def entries_of(training: RecordSource) -> list[Entry]:
    """Lengths with and without pictures."""
    return [Entry(tokens, tokens - visual) for tokens, visual in training.sizes()]
