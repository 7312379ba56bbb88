"""What a published drafter's repository runs for `generate(**inputs, custom_generate=repo, trust_remote_code=True)`.

Takes `generate`'s arguments, loads the drafter that was published with it, and lets `generate` prepare the request as
always. Lies in the repository as `custom_generate/generate.py`; knows no drafter family and changes no class.
"""

import re
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from transformers import (
    AutoModel,
    GenerationConfig,
    PreTrainedModel,
    StoppingCriteriaList,
    StopStringCriteria,
)
from transformers.generation.streamers import BaseStreamer

from hf_mmspec.modeling.binding import unwrap
from hf_mmspec.modeling.strict_loading import HUB_OPTIONS

from .budget import BUDGET_FIELDS
from .strategy import speculative_decoding

# A target's drafter and where it came from, for as long as the target lives: loaded once, not once per request.
_loaded: WeakKeyDictionary[PreTrainedModel, tuple[str, PreTrainedModel]] = WeakKeyDictionary()


def generate(
    model: PreTrainedModel,
    assistant_model: PreTrainedModel | str | Path | None = None,
    generation_config: GenerationConfig | None = None,
    stopping_criteria: StoppingCriteriaList | None = None,
    streamer: BaseStreamer | None = None,
    tokenizer: Any = None,
    **kwargs: Any,
):
    """`model.generate` with a drafter: the same tokens, sooner. Called by `generate(custom_generate=...)`.

    Args:
        model: the target.
        assistant_model: the drafter, or its folder or repository; by default the one of this repository, at the
            commit that this code is from.
        kwargs: as `generate`; `draft_depth`, `draft_top_k`, `draft_total_tokens` and `draft_mode` are the draft
            budget; `token`, `cache_dir`, `local_files_only`, `force_download` and `proxies` reach every file that is
            fetched.

    Returns:
        What `generate` returns.

    Raises:
        ValueError: this code is from a local folder and no `assistant_model` is given, or the request or the drafter
            does not fit.
    """
    hub_options = {name: kwargs.pop(name) for name in HUB_OPTIONS if name in kwargs}
    budget = {name: kwargs.pop(name) for name in BUDGET_FIELDS if name in kwargs}
    drafter = unwrap(assistant_model)
    if not isinstance(drafter, PreTrainedModel):
        drafter = _drafter_of(model, drafter, hub_options)

    def decode(model, input_ids, generation_config, **rest):
        for field, value in budget.items():
            setattr(generation_config, field, value)
        return speculative_decoding(
            model,
            input_ids,
            generation_config=generation_config,
            assistant_model=drafter,
            streamer=streamer,
            **rest,
        )

    configured = (generation_config and generation_config.stop_strings) or model.generation_config.stop_strings
    stop_strings = kwargs.pop("stop_strings", None) or configured
    if stop_strings:  # `generate` has no tokenizer for a decoding function, so the criterion is made here
        if tokenizer is None:
            raise ValueError("stop_strings need the tokenizer: pass tokenizer=... (or processor.tokenizer) as well.")
        criterion = StopStringCriteria(tokenizer, stop_strings)
        stopping_criteria = StoppingCriteriaList([*(stopping_criteria or ()), criterion])
        if configured:
            kwargs["stop_strings"] = None
    return model.generate(
        generation_config=generation_config,
        stopping_criteria=stopping_criteria,
        streamer=streamer,  # gets the prompt from `generate`, and every token from the loop
        custom_generate=decode,
        **kwargs,
    )


def _drafter_of(target: PreTrainedModel, name: str | Path | None, hub_options: dict[str, Any]) -> PreTrainedModel:
    """The drafter that is named, or this repository's, in the target's dtype and on its device."""
    if name is None:
        name, hub_options["revision"] = own_repository(__name__)
    key = f"{name}@{hub_options.get('revision')}"
    loaded_from, drafter = _loaded.get(target, ("", None))
    if drafter is None or loaded_from != key:
        # Whoever runs this has trusted the repository's code already.
        drafter = AutoModel.from_pretrained(str(name), trust_remote_code=True, dtype=target.dtype, **hub_options)
        _loaded[target] = key, drafter
    return drafter.to(device=target.device, dtype=target.dtype).eval()


def own_repository(module: str) -> tuple[str, str]:
    """Repository and commit that a module of transformers' cache for remote code comes from: its name says so, as in
    `transformers_modules.some_hyphen_org.a_dot_name.COMMIT.custom_generate.generate`.

    Raises:
        ValueError: the module comes from a local folder, whose place is not known.
    """
    *names, commit = module.split(".")[1:-2]
    if not re.fullmatch("[0-9a-f]{40}", commit):
        raise ValueError(
            "custom_generate is a local folder, which does not say where its drafter is: pass the folder as "
            "assistant_model=... as well."
        )
    plain = (name.replace("_hyphen_", "-").replace("_dot_", ".") for name in names)
    return "/".join(re.sub(r"^_(?=\d)", "", name) for name in plain), commit
