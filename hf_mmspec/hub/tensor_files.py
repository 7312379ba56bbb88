"""Files of tensors, one tensor at a time: safetensors, or a `torch.save`d state dict that holds nothing but tensors.

Never unpickles anything else, and knows nothing about what the tensors mean.
"""

import pickle
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from .errors import ConversionError

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True)
class TensorInfo:
    """What a file says about one of its tensors. `dtype` is None for a format that no weights here have (fp8, ...)."""

    file: Path
    shape: tuple[int, ...]
    dtype: torch.dtype | None

    @property
    def nbytes(self) -> int:
        return torch.Size(self.shape).numel() * (self.dtype.itemsize if self.dtype else 1)


def list_tensors(file: Path) -> dict[str, TensorInfo]:
    """Names, shapes and dtypes of a file's tensors.

    Raises:
        ConversionError: the file is corrupt, or a `.bin` holds something else than tensors.
    """
    if file.suffix == ".bin":
        return {name: TensorInfo(file, tuple(t.shape), t.dtype) for name, t in _load_bin(file).items()}
    with _open_safetensors(file) as opened:
        slices = {name: opened.get_slice(name) for name in sorted(opened.keys())}
        return {
            name: TensorInfo(file, tuple(part.get_shape()), _DTYPES.get(part.get_dtype()))
            for name, part in slices.items()
        }


@contextmanager
def open_tensors(file: Path) -> Iterator[Callable[[str], torch.Tensor]]:
    """A function that gives the file's tensors by name. They are mapped, not read, and only valid inside."""
    if file.suffix == ".bin":
        yield _load_bin(file).__getitem__
    else:
        with _open_safetensors(file) as opened:
            yield opened.get_tensor


@contextmanager
def _open_safetensors(file: Path) -> Iterator[Any]:
    try:
        with safe_open(file, framework="pt") as opened:
            yield opened
    except SafetensorError as error:
        raise ConversionError(f"{file} is corrupt or cut short: download it again. ({error})") from error


def _load_bin(file: Path) -> dict[str, torch.Tensor]:
    try:
        found = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except pickle.UnpicklingError as error:
        raise ConversionError(
            f"{file} holds more than tensors, and loading the rest could run any code: re-save its state dict with "
            "`safetensors.torch.save_file` where you trust it, or ask its authors for safetensors."
        ) from error
    except (RuntimeError, EOFError) as error:
        raise ConversionError(f"{file} is corrupt or cut short: download it again. ({error})") from error
    entries = found if isinstance(found, dict) else {type(found).__name__: found}
    others = [str(name) for name, value in entries.items() if not isinstance(value, torch.Tensor)]
    if others:
        raise ConversionError(
            f"{file} is no plain state dict ({', '.join(others[:5])} is no tensor): save the model's state dict alone "
            "with `safetensors.torch.save_file`."
        )
    return {name: tensor.detach() for name, tensor in entries.items()}
