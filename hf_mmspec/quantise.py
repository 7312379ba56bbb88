"""4-bit and 8-bit targets: the words for them, the config of transformers that a word stands for, what a model is.

Knows no drafter. Weights are packed while transformers loads them, by bitsandbytes.
"""

from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForImageTextToText, BitsAndBytesConfig, PreTrainedModel

from hf_mmspec.modeling.binding import unwrap
from hf_mmspec.modeling.packed_weights import fits_kernels

WORDS = ("nf4", "int8")


class QuantisedAlreadyError(ValueError):
    """The weights are packed already; the message says how."""


def quantisation(word: str, source: str, dtype: torch.dtype) -> BitsAndBytesConfig:
    """What `from_pretrained` takes as `quantization_config` to load `source` with packed weights.

    Only the linear layers of the text decoder are packed: they are what a step of decoding reads, while the tower, the
    projector, embeddings and the head stay as they are. int8 is without outlier columns, since bitsandbytes chooses
    these over all rows of a forward, and then the tokens of a draft change one another.

    Args:
        word: one of `WORDS`.
        source: folder or repository of the target.
        dtype: that its 4-bit layers compute in.

    Raises:
        QuantisedAlreadyError: the checkpoint is quantised.
        OSError, ValueError: there is no such target.
    """
    config = AutoConfig.from_pretrained(source)
    found = _words(getattr(config, "quantization_config", None))
    if found is not None:
        raise QuantisedAlreadyError(f"{source} is quantised already ({found}): leave out --quantize {word}")
    with torch.device("meta"):
        skeleton = AutoModelForImageTextToText.from_config(config)
    outside = _outside_the_decoder(skeleton)
    return packing(word, dtype, outside if word == "int8" else [*outside, *_odd_layers(skeleton)])


def packing(word: str, dtype: torch.dtype, skip: list[str] | None = None) -> BitsAndBytesConfig:
    """The config of a word for a model of which `skip` stays as it is; None for what transformers leaves out."""
    if word == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=0.0, llm_int8_skip_modules=skip)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type=word, bnb_4bit_compute_dtype=dtype, llm_int8_skip_modules=skip
    )


def quantisation_of(model: Any) -> str | None:
    """How the weights of a loaded model are packed, such as "bitsandbytes nf4"; None where they are not."""
    model = unwrap(model)
    return _words(getattr(model.config, "quantization_config", None)) if _is_packed(model) else None


def _is_packed(model: Any) -> bool:
    return bool(getattr(model, "is_quantized", False))


def _words(config: Any) -> str | None:
    """The method, and its kind where it has several."""
    if config is None:
        return None
    said = config if isinstance(config, dict) else config.to_dict()
    method = str(getattr(said["quant_method"], "value", said["quant_method"]))
    if method == "bitsandbytes" or said.get("load_in_4bit") or said.get("load_in_8bit"):
        return f"bitsandbytes {'int8' if said.get('load_in_8bit') else said.get('bnb_4bit_quant_type', 'fp4')}"
    kind = getattr(config, "quant_type", said.get("quant_type"))
    return method if kind is None else f"{method} {kind if isinstance(kind, str) else type(kind).__name__}"


def _outside_the_decoder(model: PreTrainedModel) -> list[str]:
    """Names of the largest parts without a layer of the text decoder: tower, projector, head."""
    decoder, names = model.get_decoder(), []

    def look(module: nn.Module, name: str) -> None:
        if module is decoder:
            return
        if not any(part is decoder for part in module.modules()):
            names.append(name)
            return
        for child_name, child in module.named_children():
            look(child, f"{name}.{child_name}" if name else child_name)

    look(model, "")
    return names


def _odd_layers(model: PreTrainedModel) -> list[str]:
    """Linear layers of the text decoder that the 4-bit kernels of processors cannot take."""
    inside = set(model.get_decoder().modules())
    return [
        name
        for name, module in model.named_modules()
        if module in inside and isinstance(module, nn.Linear) and not fits_kernels(module)
    ]
