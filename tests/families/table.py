"""Writes docs/families.md from the models that the tests build: `python -m tests.families.table > docs/families.md`.

What it says of a model is read from its config, what it says of a refusal is the error's own text.
"""

from collections.abc import Iterator

from transformers import GenerationConfig, PreTrainedConfig, PreTrainedModel

from hf_mmspec.generation.strategy import _check_model
from hf_mmspec.generation.tree_mask import LayerWindows

from . import refused
from .family import Family
from .test_families import WORKING
from .test_videos import TARGETS as WITH_VIDEOS

HEAD = """# Families of targets

A family works where its decoder can check a tree of drafts, and is refused by name before any work where it cannot.
These are tested, each as a tiny model of transformers' own class with random weights: in float32 the same tokens,
scores, logits and cache as `generate` without a drafter, for drafts that are right, wrong and mixed, in trees and
chains, with EAGLE-2, ViSpec and EAGLE-3 drafters. Decoders of text alone work by the same code
(`tests/generation/test_other_families.py`).

* **positions**: rotary positions of a token. *Three* is M-RoPE: time, row and column.
* **windows**: layers that see a limited number of tokens. *Some* have full layers beside them.
* **tested with**: pictures in a prompt; *videos* where prompts with videos, and with both, are tested too.

This page is written by `python -m tests.families.table > docs/families.md`, and a test compares it.

"""
TAIL = """
## Videos

Each frame is a span of its own for the drafter: ViSpec's adaptor makes `num_q - 1` rows of it, FLASH's pool at most
`num_latents`, MSD reads its tokens as they are. A frame is what the target encodes as one, so for Qwen a *temporal
patch* (two pictures of the video). One compressed picture for a whole video would have to hold minutes in one row, and
could not hold Qwen3-VL's frames, which have time stamps between them; per frame, a drafter trained on pictures knows
what it gets. The global feature that ViSpec's text rows see is that of the last frame before them. Frames are found by
text between them (Qwen3-VL), by the positions, which begin in the same corner for each (Qwen2.5-VL), or by the number
of pictures that the tower encoded (LLaVA-OneVision); where none of these tells, a video is one span.

With hundreds of frames most of the time goes into the prefill, which no drafter makes shorter. It computes the logits
of the last position only and keeps, for the drafter, the embeddings and the features that it reads
(`tests/generation/test_long_prompts.py`). `mmspec bench` reports `time_to_first_token` for each contender.
"""


def page() -> str:
    """The whole page."""
    return HEAD + "\n".join(_lines()) + "\n" + TAIL


def _lines() -> Iterator[str]:
    yield "| family | class | positions | windows | tested with | notes |"
    yield "|---|---|---|---|---|---|"
    for name, family in WORKING.items():
        model = family.model()
        text = model.config.get_text_config(decoder=True)
        yield _row(name, _class(model), _positions(text), _windows(text), _tested(name, family), family.note)
    yield ""
    yield "| refused | class | because |"
    yield "|---|---|---|"
    for name, family in refused.FAMILIES.items():
        model = family.model()
        yield _row(name, _class(model), _reason(model))


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _class(model: PreTrainedModel) -> str:
    return f"`{type(model).__name__}`"


def _positions(text: PreTrainedConfig) -> str:
    parameters = getattr(text, "rope_parameters", None) or {}
    if "mrope_section" in parameters:
        return "three"
    return "one" if "rope_type" in parameters else "one, frequencies by kind of layer"


def _windows(text: PreTrainedConfig) -> str:
    windows = LayerWindows.of(text)
    if windows.window is None:
        return "none"
    return "some" if windows.has_full else "all"


def _tested(name: str, family: Family) -> str:
    pictures = "text" if family.pixels is None else "0 and 2"
    return f"{pictures}, videos" if name in WITH_VIDEOS else pictures


def _reason(model: PreTrainedModel) -> str:
    try:
        _check_model(model, GenerationConfig())
    except ValueError as error:
        return str(error).removeprefix(f"{type(model).__name__}: ")
    raise AssertionError(f"{type(model).__name__} is not refused")


if __name__ == "__main__":
    print(page(), end="")
