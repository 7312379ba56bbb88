"""Trains the embedded default from nothing: `python -m hf_mmspec.demo.making.train`.

Stages: `vision` (tower and projector), `oracle` (LoRA on perfect visual tokens), `real` (LoRA on the tower's tokens),
`talks` (the base's own answers to open questions), `tasks` (all tasks together, from the end of `real` or, where that
was not run, from the committed weights), `export` (writes the committed weights). Each keeps its state in the folder:
a rerun resumes or skips it. The first two do not need each other and may run at the same time in two processes. Its
border: the order of the stages.
"""

import logging
from pathlib import Path
from typing import Annotated

import torch
import typer
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from ..model.base_model import find_gguf, load_base
from ..model.loader import cache_home
from ..model.merge import build_target
from ..model.processor import with_image_token
from ..model.weights import WEIGHTS, read_weights
from .checkpoint import load_state
from .export import export, peft_tensors, vision_parts
from .look import real_look
from .low_rank import add_low_rank
from .stage_language import LanguageRecipe, add_adapter, oracle_look, train_language
from .stage_tasks import Learner, TasksRecipe, train_tasks, wish_weights
from .stage_vision import VisionLearner, VisionRecipe, train_vision
from .teacher import collect_talks, read_talks
from .visual_words import VisualWords

STAGES = ("vision", "oracle", "real", "talks", "tasks", "export")
VISION = VisionRecipe()
ORACLE = LanguageRecipe(name="oracle", steps=50, lr=5e-4)
REAL = LanguageRecipe(name="real", steps=420, lr=5e-4, first=100_000)
TASKS = TasksRecipe()
TALKS = 480


def _base(folder: Path) -> tuple[PreTrainedModel, AutoTokenizer]:
    """SmolLM2 in bfloat16 and our tokenizer, dequantised once into the folder."""
    place = folder / "base"
    if not (place / "config.json").exists():
        gguf = find_gguf()
        AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name).save_pretrained(place)
        load_base(gguf, torch.bfloat16).save_pretrained(place)
    model = AutoModelForCausalLM.from_pretrained(place, dtype=torch.bfloat16)
    return model, with_image_token(AutoTokenizer.from_pretrained(place))


def _vision_learner(vocabulary: VisualWords, folder: Path) -> VisionLearner:
    return train_vision(VISION, vocabulary, folder)


def _train_language(model: PreTrainedModel, tokenizer, vocabulary: VisualWords, folder: Path, real: bool) -> None:
    table = model.get_input_embeddings().weight.detach().clone()
    adapted = add_adapter(model.model)
    train_language(ORACLE, adapted, table, tokenizer, oracle_look(vocabulary, 0), folder)
    if real:
        look = real_look(_vision_learner(vocabulary, folder))
        train_language(REAL, adapted, table, tokenizer, look, folder)


def _start(folder: Path) -> tuple[dict, dict[str, str]]:
    """Parts and metadata that `tasks` begins with: of the finished stages, or the committed ones."""
    real = load_state(folder / f"{REAL.name}.pt")
    if real is None:
        return read_weights()
    parts, metadata = vision_parts(folder, VISION)
    return {**parts, "lora": peft_tensors(real["adapter"])}, metadata


def learner(folder: Path) -> tuple[Learner, dict, dict[str, str]]:
    """What the stage `tasks` trains, and the parts and metadata it began with."""
    base, tokenizer = _base(folder)
    parts, metadata = _start(folder)
    other = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float32)
    target = build_target(other, {**parts, "lora": {}}, metadata).to(torch.bfloat16).requires_grad_(False)
    target.get_decoder().set_attn_implementation("eager")  # whose backward is faster on a processor
    factors = add_low_rank(target.get_decoder(), parts["lora"])
    weights = wish_weights(tokenizer, target.get_input_embeddings().num_embeddings)
    return Learner(target, factors, base.requires_grad_(False), tokenizer, weights), parts, metadata


def _talks_and_tasks(stage: str, folder: Path) -> None:
    path = folder / "talks.jsonl"
    if stage in ("talks", "all"):
        collect_talks(*_base(folder), "train", TALKS, path)
    if stage in ("tasks", "all"):
        if not (talks := read_talks(path)):
            raise FileNotFoundError(f"{path} is missing: run the stage talks first")
        train_tasks(TASKS, learner(folder)[0], talks, folder)


def run(stage: str, folder: Path) -> None:
    """One stage, or `all`."""
    folder.mkdir(parents=True, exist_ok=True)
    if stage in ("vision", "oracle", "real", "all"):
        model, tokenizer = _base(folder)
        vocabulary = VisualWords(tokenizer, model.get_input_embeddings().weight.detach())
        if stage in ("vision", "all"):
            _vision_learner(vocabulary, folder)
        if stage != "vision":
            _train_language(model, tokenizer, vocabulary, folder, real=stage != "oracle")
    _talks_and_tasks(stage, folder)
    if stage in ("export", "all"):
        parts, metadata = _start(folder)
        export(folder, parts, metadata, TASKS.name, WEIGHTS)


def main(
    stage: Annotated[str, typer.Option(help=f"one of {', '.join(STAGES)}, or all")] = "all",
    folder: Annotated[Path | None, typer.Option(help="where the stages keep their state")] = None,
    threads: Annotated[int, typer.Option(help="CPU threads; 0 leaves torch's choice")] = 0,
) -> None:
    """Trains the embedded default; a rerun goes on where the last run stopped."""
    if stage not in (*STAGES, "all"):
        raise typer.BadParameter(f"unknown stage {stage!r}", param_hint="--stage")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if threads:
        torch.set_num_threads(threads)
    run(stage, folder or cache_home() / "train")


if __name__ == "__main__":
    typer.run(main)
