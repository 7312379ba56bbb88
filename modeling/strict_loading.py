"""Loading a drafter's folder strictly: all weights, no others, none newly initialised, sane vocabulary map.

Turns what goes wrong into one error that names the file and the fix.
"""

import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import GenerationConfig
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, cached_file

HUB_OPTIONS = ("cache_dir", "force_download", "local_files_only", "proxies", "revision", "subfolder", "token")


class DrafterLoadError(OSError):
    """A drafter's folder is incomplete, corrupt or not a drafter's; the message names file and fix."""


def load_strictly(load, path: str | Path, *args, **kwargs) -> tuple[Any, dict]:
    """Call `load(path, *args, output_loading_info=True, **kwargs)` and insist on a clean report.

    Returns:
        The model and transformers' loading report.

    Raises:
        DrafterLoadError: unreadable files, missing, unexpected or misshaped weights.
    """
    try:
        model, report = load(path, *args, output_loading_info=True, **kwargs)
    except (SafetensorError, EOFError) as error:
        raise DrafterLoadError(
            f"{path}: the weights file (model.safetensors) is corrupt or cut short ({error}). Download or save the "
            "drafter again."
        ) from error
    except StrictDataclassError as error:
        raise DrafterLoadError(f"{path}: config.json has a value that cannot be: {error}") from error
    except json.JSONDecodeError as error:
        raise DrafterLoadError(f"{path}: a JSON file is corrupt ({error}). Download or save it again.") from error
    except RuntimeError as error:
        if "mismatch" not in str(error):
            raise
        raise DrafterLoadError(
            f"{path}: weights in model.safetensors do not have the shapes that config.json asks for. The two files "
            f"belong to different drafters: download or save both again. ({error})"
        ) from error
    _insist_on_clean_report(path, report)
    return model, report


def _insist_on_clean_report(path: str | Path, report: dict) -> None:
    complaints = [
        f"{what}: {', '.join(sorted(map(str, report[key])))}"
        for key, what in (
            ("missing_keys", "missing"),
            ("unexpected_keys", "unexpected"),
            ("mismatched_keys", "wrong shape"),
            ("error_msgs", "errors"),
        )
        if report.get(key)
    ]
    if complaints:
        raise DrafterLoadError(
            f"{path}: model.safetensors does not match config.json ({'; '.join(complaints)}). Nothing is initialised "
            "anew or left out on purpose: save the drafter again, or convert another program's checkpoint with "
            "`mmspec convert`."
        )


def check_weight_files(path: str | Path, options: dict) -> None:
    """Check that a folder or repository has its weights in safetensors, beside its config.

    Raises:
        DrafterLoadError: it has none (a pickle does not count), or its index is corrupt or names a file elsewhere.
    """
    find = partial(cached_file, path, **options, _raise_exceptions_for_missing_entries=False)
    if find(SAFE_WEIGHTS_NAME) is not None:
        return
    index = find(SAFE_WEIGHTS_INDEX_NAME)
    if index is None:
        raise DrafterLoadError(
            f"{path} has no {SAFE_WEIGHTS_NAME} (and no {SAFE_WEIGHTS_INDEX_NAME}): the weights are missing (when "
            "offline: not in the cache), or are a pickle, which is not opened. Download or save the drafter again."
        )
    try:
        names = set(json.loads(Path(index).read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DrafterLoadError(f"{path}: {SAFE_WEIGHTS_INDEX_NAME} is corrupt. Download or save it again.") from error
    for name in names:
        if not isinstance(name, str) or not re.fullmatch(r"\w[\w.-]*\.safetensors", name):
            raise DrafterLoadError(
                f"{path}: {SAFE_WEIGHTS_INDEX_NAME} names {name!r}, which is no safetensors file beside it: do not "
                "use this drafter, or save it again where you trust it."
            )


def check_draft_map(d2t: torch.Tensor, vocab_size: int) -> None:
    """Check a reduced vocabulary: draft id i is target id `i + d2t[i]` (offsets, so zeros are the identity).

    Raises:
        ValueError: an id falls outside the target's vocabulary, or two draft ids mean the same token.
    """
    ids = torch.arange(d2t.shape[0], device=d2t.device) + d2t
    if d2t.dtype != torch.long or bool((ids < 0).any()) or bool((ids >= vocab_size).any()):
        raise ValueError(
            f"bad draft vocabulary: d2t must be int64 offsets (target id = draft id + d2t[draft id]) that stay within "
            f"the target's {vocab_size} tokens; ids reach from {int(ids.min())} to {int(ids.max())}. A map that holds "
            "target ids instead of offsets must have torch.arange subtracted."
        )
    if ids.unique().shape[0] != ids.shape[0]:
        raise ValueError("bad draft vocabulary: two draft ids map to the same target token")


def check_packed_layers(unusable: list[str]) -> None:
    """Raises DrafterLoadError where layers were packed to 4 bits that this processor's kernels cannot run."""
    if unusable:
        named = ", ".join(unusable[:3]) + ", ..." * (len(unusable) > 3)
        raise DrafterLoadError(
            "bitsandbytes' 4-bit kernels for this processor take layers whose sizes are multiples of 32 (out) and 64 "
            f"(in), which {named} are not: name these in llm_int8_skip_modules, or load it in 8 bits or as it is"
        )


def load_generation_config(path: str | Path, options: dict) -> GenerationConfig:
    """The folder's generation_config.json (draft budget and so on); an empty one where there is none."""
    try:
        return GenerationConfig.from_pretrained(path, **options)
    except OSError as error:
        if "generation_config.json" in str(error) and (Path(path) / "generation_config.json").exists():
            raise DrafterLoadError(f"{path}: generation_config.json is corrupt. Save it again. ({error})") from error
        return GenerationConfig()
