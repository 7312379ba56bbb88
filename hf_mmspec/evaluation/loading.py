"""Finds the target and the drafter that a command names; without names, those of this repository.

Knows where things are, not what they do.
"""

from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor, PreTrainedModel

from hf_mmspec import AutoDrafter
from hf_mmspec.demo import fast_dtype, load_default
from hf_mmspec.modeling import Drafter

DEFAULT_DRAFTER = "vispec-llava-smollm2-135m"


class NotFoundError(ValueError):
    """Something that a command needs is not there; the message says how to get it."""


def load_target(model: str | None = None, dtype: str = "auto") -> tuple[PreTrainedModel, Any]:
    """The target in eval mode and its processor.

    Args:
        model: folder or Hub repository of any image-text-to-text model; None for the embedded default.
        dtype: `"auto"` for this machine's fast one, or a torch dtype's name.
    """
    if model is None:
        return load_default(dtype)
    chosen = fast_dtype() if dtype == "auto" else getattr(torch, dtype)
    target = AutoModelForImageTextToText.from_pretrained(model, dtype=chosen)
    if not getattr(target, "is_quantized", False):  # those are where their weights were packed
        target = target.to("cuda" if torch.cuda.is_available() else "cpu")
    return target.eval(), AutoProcessor.from_pretrained(model)


def default_drafter() -> str:
    """The folder of the drafter for the embedded default: inside the installed package, or beside it in a checkout.

    Raises:
        NotFoundError: this installation has none, as one that was copied without its large files.
    """
    package = Path(str(files("hf_mmspec")))
    for cards in (package / "hub_cards", package.parent / "hub_cards"):
        if (cards / DEFAULT_DRAFTER / "model.safetensors").is_file():
            return str(cards / DEFAULT_DRAFTER)
    raise NotFoundError(
        f"the embedded default's drafter ({DEFAULT_DRAFTER}) is neither in the package ({package}) nor beside it: "
        "install the wheel or a checkout of hf_mmspec, or give a drafter with --drafter"
    )


def load_drafter(drafter: str | None, target: PreTrainedModel) -> Drafter:
    """The drafter as it drafts fastest for the target: in its dtype and on its device, rounded to int8 on a processor.

    Args:
        drafter: folder or Hub repository; None for the embedded default's.
    """
    loaded = AutoDrafter.from_pretrained(drafter or default_drafter())
    ready = loaded.to(device=target.device, dtype=target.dtype).eval()
    return ready.int8() if target.device.type == "cpu" else ready
