"""What `mmspec distil` and `mmspec train` share: options become sources, recipes and a loaded target.

Checks what can be checked before a model is loaded.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hf_mmspec.data import Columns, Source

from .session import use_threads


def columns_of(
    prompt: str | None, image: str | None, messages: str | None, task: str | None, id: str | None
) -> Columns:
    """Names of columns as options gave them."""
    return Columns(prompt=prompt, image=image, messages=messages, task=task, id=id)


def source_of(
    data: str,
    split: str | None,
    subset: str | None,
    revision: str | None,
    columns: Columns,
    append: str,
    limit: int | None,
    skip: int,
    pictures: str | None,
) -> Source:
    """A source of prompts as options gave it."""
    return Source(data, split, subset, columns, append, limit, skip, revision, pictures=pictures)


def recipe_of(name: str, changes: Sequence[str]) -> Any:
    """The recipe of a family, or of a YAML file."""
    from hf_mmspec.training.recipes import family_recipe, read_recipe

    file = Path(name)
    return read_recipe(file if file.suffix in (".yaml", ".yml") else family_recipe(name), changes)


def named_dtype(name: str | None) -> Any:
    """A torch dtype by its name; None for None."""
    import torch

    return None if name is None else getattr(torch, name)


def read_answers(folders: Sequence[Path]) -> list[Any]:
    """Answers of several folders."""
    from hf_mmspec.training.answers.store import AnswerSet

    return [AnswerSet.load(folder) for folder in folders]


def quiet(threads: int | None) -> None:
    """Libraries say errors only; our own bar is enough."""
    import datasets

    datasets.disable_progress_bars()
    use_threads(threads)


def load_for_training(model: str | None, dtype: str, quantize: str | None = None) -> tuple[Any, Any]:
    """The target on this process's device, and its processor."""
    from hf_mmspec.evaluation import loading
    from hf_mmspec.training.processes import processes

    state = processes()  # before the model: it knows which device is this process's
    target, processor = loading.load_target(model, dtype, quantize)
    if getattr(target, "hf_device_map", None) is None and getattr(target, "quantization_method", None) is None:
        target = target.to(state.device)
    return target, processor


def insist_on_reporter(report_to: str) -> None:
    """Raises ValueError where transformers' Trainer would not know what is meant."""
    from transformers.integrations import INTEGRATION_TO_CALLBACK

    known = ["none", "all", *INTEGRATION_TO_CALLBACK]
    if report_to not in known:
        raise ValueError(f"--report-to {report_to}: choose one of {', '.join(known)}")
