"""Tiny targets with packed weights, as a user has them: saved in full, loaded with a quantization config."""

import importlib.util

import pytest
import torch
from transformers import AutoModelForImageTextToText, BitsAndBytesConfig, TorchAoConfig

from . import tiny

# bitsandbytes' kernels for processors take layers in blocks of 32 x 64
SIZES = {
    "llava": {"hidden_size": 64, "intermediate_size": 128},
    "qwen": {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 8, "num_key_value_heads": 4},
}
SKIPPED = ["model.vision_tower", "model.visual", "model.multi_modal_projector", "lm_head"]
FORMS = ("nf4", "int8", "int8 with outliers", "torchao int8", "torchao int4")


def config(form, skip=SKIPPED, **more):
    """The quantization config of a form; the test is skipped where its package is missing."""
    package = "torchao" if form.startswith("torchao") else "bitsandbytes"
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    if form == "nf4":
        kind = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": torch.float32}
        return BitsAndBytesConfig(load_in_4bit=True, llm_int8_skip_modules=skip, **{**kind, **more})
    if form.startswith("int8"):
        threshold = 0.5 if "outliers" in form else 0.0  # tiny models have no state above the usual 6.0
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=threshold, llm_int8_skip_modules=skip)
    from torchao.quantization import Int8WeightOnlyConfig, IntxWeightOnlyConfig, PerGroup

    kind = Int8WeightOnlyConfig() if form == "torchao int8" else IntxWeightOnlyConfig(torch.int4, PerGroup(32))
    return TorchAoConfig(kind, modules_to_not_convert=skip)


def load(folder, form, dtype=torch.float32, **options):
    """The target in `folder` with packed weights."""
    packed = config(form, **options)
    return AutoModelForImageTextToText.from_pretrained(folder, quantization_config=packed, dtype=dtype).eval()


def save_full(family, folder, **fields):
    """A target of `family` with its weights in full, saved in `folder`, and returned."""
    model = tiny.FAMILIES[family](**{**SIZES[family], **fields})
    model.save_pretrained(folder)
    return model
