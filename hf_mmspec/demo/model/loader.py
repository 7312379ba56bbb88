"""`load_default()`: the embedded default target and its processor, merged once and cached.

Its border: files. A cache folder appears whole or not at all, and is made anew when it does not load.
"""

import os
import shutil
import tempfile
from pathlib import Path

import torch
from huggingface_hub.constants import HF_HOME
from transformers import AutoProcessor, LlavaForConditionalGeneration

from hf_mmspec.modeling.file_modes import follow_umask
from hf_mmspec.quantise import quantisation

from .base_model import find_gguf, load_base
from .fast_dtype import fast_dtype
from .merge import build_target
from .processor import build_processor, build_tokenizer
from .weights import WEIGHTS, fingerprint, read_weights

LAYOUT = 1  # raise it when merge.py or processor.py change what they write


def cache_home() -> Path:
    """`HF_MMSPEC_CACHE`, or `hf_mmspec` in the Hugging Face cache home."""
    return Path(os.environ.get("HF_MMSPEC_CACHE") or Path(HF_HOME) / "hf_mmspec").expanduser()


def cache_folder(weights: Path = WEIGHTS) -> Path:
    """Where the merged model of these weights belongs."""
    return cache_home() / f"target-{LAYOUT}-{fingerprint(weights)}"


def _merge_into(folder: Path, weights: Path) -> None:
    parts, metadata = read_weights(weights)
    gguf = find_gguf()
    model = build_target(load_base(gguf), parts, metadata)
    model.to(torch.bfloat16).save_pretrained(folder)
    follow_umask(*folder.glob("*.safetensors"))
    build_processor(build_tokenizer(gguf)).save_pretrained(folder)


def ensure_merged(weights: Path = WEIGHTS) -> Path:
    """The folder with the merged model; made beside its final place and renamed, so that racers cannot meet halves."""
    folder = cache_folder(weights)
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
    try:
        _merge_into(temporary, weights)
        temporary.chmod(0o755)  # mkdtemp makes private folders, a cache may be shared
        os.replace(temporary, folder)
    except OSError:
        if not folder.is_dir():  # another process may have been faster, which is as good
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _cast_pixels(tower: torch.nn.Module, args: tuple) -> tuple:
    return (args[0].to(next(tower.parameters()).dtype), *args[1:])


def _load(folder: Path, dtype: torch.dtype, quantize: str | None) -> tuple:
    packed = {"quantization_config": quantisation(quantize, str(folder), dtype)} if quantize else {}
    model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=dtype, local_files_only=True, **packed)
    # CLIP and SigLIP cast their pixels themselves, LeViT does not, and processors give float32
    model.model.vision_tower.register_forward_pre_hook(_cast_pixels)
    return model.eval(), AutoProcessor.from_pretrained(folder, local_files_only=True)


def load_default(dtype: torch.dtype | str = "auto", quantize: str | None = None) -> tuple:
    """Returns `(model, processor)`: a `LlavaForConditionalGeneration` in eval mode and its `LlavaProcessor`.

    `dtype` is a torch dtype, its name ("bfloat16", "float32"), or "auto" for the machine's fast one. The first call
    merges the committed weights into SmolLM2 (half a minute) and caches 270 MB; the weights are the same bfloat16
    numbers in every dtype. `quantize` is "nf4" or "int8" for packed weights in the text decoder (bitsandbytes).

    Raises:
        ImportError: a package that this needs is missing.
    """
    wanted = fast_dtype() if dtype == "auto" else getattr(torch, dtype) if isinstance(dtype, str) else dtype
    folder = ensure_merged()
    try:
        return _load(folder, wanted, quantize)
    except (ImportError, MemoryError, RuntimeError):  # these say nothing about the cache
        raise
    except Exception:  # a truncated file shows in many ways: make the folder anew, once
        shutil.rmtree(folder, ignore_errors=True)
        return _load(ensure_merged(), wanted, quantize)
