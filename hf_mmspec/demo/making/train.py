"""Trains the embedded default from nothing: `python -m hf_mmspec.demo.making.train`.

Stages: `vision` (tower and projector), `oracle` (LoRA on perfect visual tokens), `real` (LoRA on the tower's tokens),
`export` (writes the committed weights). Each keeps its state in the folder: a rerun resumes or skips it. The first
two do not need each other and may run at the same time in two processes. Its border: the order of the stages.
"""

import logging
from pathlib import Path
from typing import Annotated

import torch
import typer
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from ..model.base_model import find_gguf, load_base
from ..model.loader import cache_home
from ..model.processor import with_image_token
from ..model.weights import WEIGHTS
from .export import export
from .look import real_look
from .stage_language import LanguageRecipe, add_adapter, oracle_look, train_language
from .stage_vision import VisionLearner, VisionRecipe, train_vision
from .visual_words import VisualWords

STAGES = ("vision", "oracle", "real", "export")
VISION = VisionRecipe()
ORACLE = LanguageRecipe(name="oracle", steps=50, lr=5e-4)
REAL = LanguageRecipe(name="real", steps=420, lr=5e-4, first=100_000)


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
    if stage in ("export", "all"):
        export(folder, VISION, REAL.name, WEIGHTS)


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
