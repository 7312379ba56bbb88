"""transformers' generating pipelines with a drafter for an assistant: `pipeline(..., assistant_model=drafter)`.

Knows nothing of decoding, and hands every call with another assistant, or none, to the stock class as it came. Two
things of the stock classes (5.24) do not fit a drafter: they want an assistant's tokenizer or the target's token ids
in its config, though a drafter speaks its target's tokens by nature (`bind` checks that); and those that take images
load an assistant but never hand it to `generate`.
"""

from pathlib import Path
from typing import Any

import transformers
from transformers import AnyToAnyPipeline, ImageTextToTextPipeline, Pipeline, TextGenerationPipeline
from transformers.pipelines import PIPELINE_REGISTRY

from .auto import AutoDrafter, read_config
from .modeling import FAMILIES, Drafter, DrafterLoadError
from .modeling.binding import unwrap


class _WithDrafter(Pipeline):
    """Takes a drafter out of the arguments before the stock class sees it, and loads one that is given by name."""

    def __init__(self, *args: Any, **kwargs: Any):
        assistant = kwargs.get("assistant_model")
        if not is_drafter(assistant):
            super().__init__(*args, **kwargs)
            return
        super().__init__(*args, **{**kwargs, "assistant_model": None, "assistant_tokenizer": None})
        self.assistant_model = fitting_drafter(assistant, self.model)
        self._forward_params["assistant_model"] = self.assistant_model


class _HandsDrafterOver(_WithDrafter):
    """For the classes whose stock code passes no assistant on, neither the pipeline's nor a call's."""

    def _sanitize_parameters(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        assistant = kwargs.get("assistant_model")
        if not is_drafter(assistant):
            return super()._sanitize_parameters(**kwargs)
        del kwargs["assistant_model"]
        preprocess, forward, postprocess = super()._sanitize_parameters(**kwargs)
        return preprocess, {**forward, "assistant_model": fitting_drafter(assistant, self.model)}, postprocess

    def _forward(self, model_inputs: Any, generate_kwargs: dict[str, Any] | None = None, assistant_model: Any = None):
        if assistant_model is not None:
            generate_kwargs = {"assistant_model": assistant_model, **(generate_kwargs or {})}
        return super()._forward(model_inputs, generate_kwargs)


class DraftingImageTextToTextPipeline(_HandsDrafterOver, ImageTextToTextPipeline):
    """`pipeline("image-text-to-text", ...)`; a call may name another drafter than the pipeline's."""


class DraftingAnyToAnyPipeline(_HandsDrafterOver, AnyToAnyPipeline):
    """`pipeline("any-to-any", ...)`, likewise."""


class DraftingTextGenerationPipeline(_WithDrafter, TextGenerationPipeline):
    """`pipeline("text-generation", ...)`, whose stock code passes the assistant on by itself."""


# task -> our class and the stock class that it stands for
_CLASSES = {
    "image-text-to-text": (DraftingImageTextToTextPipeline, ImageTextToTextPipeline),
    "any-to-any": (DraftingAnyToAnyPipeline, AnyToAnyPipeline),
    "text-generation": (DraftingTextGenerationPipeline, TextGenerationPipeline),
}


def register_pipelines() -> None:
    """Make `pipeline(task)` build the subclasses above. Idempotent; a class that somebody else has registered for a
    task stays."""
    for task, (ours, stock) in _CLASSES.items():
        entry = PIPELINE_REGISTRY.supported_tasks[task]
        if entry["impl"] in (stock, f"{stock.__module__}.{stock.__name__}"):
            entry["impl"] = ours


def is_drafter(assistant: Any) -> bool:
    """Whether an assistant is a drafter, or the folder or repository of one. A published checkpoint counts where the
    stock code could not load it, since its config names no class of transformers."""
    if not isinstance(assistant, str | Path):
        return isinstance(unwrap(assistant), Drafter)
    try:
        config = read_config(str(assistant), {})
    except DrafterLoadError:  # whatever it is, the stock code has its own words for it
        return False
    has_stock_class = any(hasattr(transformers, name) for name in config.get("architectures") or ())
    return config.get("model_type") in FAMILIES or (bool(config) and not has_stock_class)


def fitting_drafter(drafter: Drafter | str | Path, target: Any) -> Any:
    """The drafter, which fits `target`; one that is given by name is loaded in the target's dtype, on its device.

    Raises:
        DrafterLoadError: see `AutoDrafter.from_pretrained`.
        DrafterMismatchError: it was made for another target.
    """
    if isinstance(drafter, str | Path):
        drafter = AutoDrafter.from_pretrained(drafter, dtype=target.dtype).to(target.device)
    unwrap(drafter).bind(target)
    return drafter
