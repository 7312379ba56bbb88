"""What commands do before their own work: quiet libraries, threads, and the models that were named.

Answers nothing. Heavy imports happen inside, so that help and bad options answer at once.
"""

from typing import TYPE_CHECKING, Any

from rich.console import Console

from .choices import DTYPES, check_choice, check_quantize

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from hf_mmspec.modeling import Drafter


def use_threads(threads: int | None) -> None:
    """Silence bars and warnings of transformers and bitsandbytes, and set torch's threads; None leaves them as they
    are."""
    import logging as standard_logging

    import torch
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    standard_logging.getLogger("bitsandbytes").setLevel(standard_logging.ERROR)  # it warns at every 8-bit layer
    if threads is not None:
        torch.set_num_threads(threads)


def check_form(dtype: str, quantize: str | None) -> None:
    """Raises ValueError or ModuleNotFoundError where a target cannot be loaded in this form, before anything is."""
    check_choice("--dtype", dtype, DTYPES)
    check_quantize(quantize)


def load_models(
    model: str | None, drafter: str | None, dtype: str, quantize: str | None, console: Console
) -> "tuple[PreTrainedModel, Any, Drafter | None]":
    """Target, processor and drafter. Where neither is named, they are the embedded ones; a model of the user's own has
    no drafter unless one is named.

    Raises:
        ValueError: one cannot be read, or they do not fit. The drafter's config.json comes first, so that a mistyped
            path fails at once.
    """
    from hf_mmspec.auto import read_config
    from hf_mmspec.evaluation.loading import default_drafter, load_drafter, load_target

    name = drafter or (default_drafter() if model is None else None)
    with console.status("loading the models"):
        if name is not None:
            read_config(name, {})
        target, processor = load_target(model, dtype, quantize)
        if name is None:
            return target, processor, None
        loaded = load_drafter(name, target)
        loaded.bind(target)
    return target, processor, loaded
