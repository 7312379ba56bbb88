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
from hf_mmspec.quantise import packing, quantisation

from .int8_choice import is_faster_in_int8

DEFAULT_DRAFTER = "vispec-llava-smollm2-135m"


class NotFoundError(ValueError):
    """Something that a command needs is not there; the message says how to get it."""


def load_target(
    model: str | None = None, dtype: str = "auto", quantize: str | None = None
) -> tuple[PreTrainedModel, Any]:
    """The target in eval mode and its processor.

    Args:
        model: folder or Hub repository of any image-text-to-text model; None for the embedded default.
        dtype: `"auto"` for this machine's fast one, or a torch dtype's name.
        quantize: `"nf4"` or `"int8"` to pack its weights while loading, see `hf_mmspec.quantise`.

    Raises:
        ImportError: bitsandbytes is missing.
        QuantisedAlreadyError: a checkpoint that is packed already is to be packed.
    """
    if model is None:
        target, processor = load_default(dtype, quantize)
    else:
        chosen = fast_dtype() if dtype == "auto" else getattr(torch, dtype)
        packed = {"quantization_config": quantisation(quantize, model, chosen)} if quantize else {}
        target = AutoModelForImageTextToText.from_pretrained(model, dtype=chosen, **packed)
        processor = AutoProcessor.from_pretrained(model)
    if not getattr(target, "is_quantized", False):  # those are where their weights were packed
        target = target.to("cuda" if torch.cuda.is_available() else "cpu")
    return target.eval(), processor


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


def load_drafter(drafter: str | None, target: PreTrainedModel, quantize: str | None = None) -> Drafter:
    """The drafter as it drafts fastest for the target: in its dtype and on its device, rounded to int8 on a processor
    where that is faster.

    Args:
        drafter: folder or Hub repository; None for the embedded default's.
        quantize: `"nf4"` or `"int8"` to pack its weights with bitsandbytes instead.

    Raises:
        DrafterLoadError: it cannot be read, or not be packed in this way.
    """
    source = drafter or default_drafter()
    if quantize is not None:
        packed = packing(quantize, target.dtype)
        return AutoDrafter.from_pretrained(source, dtype=target.dtype, quantization_config=packed).eval()
    loaded = AutoDrafter.from_pretrained(source)
    if getattr(loaded, "is_quantized", False):  # it stays where and as it was packed
        return loaded.eval()
    ready = loaded.to(device=target.device, dtype=target.dtype).eval()
    return ready.int8() if target.device.type == "cpu" and is_faster_in_int8(ready) else ready
