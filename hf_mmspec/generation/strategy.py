"""The door: how `model.generate(**inputs, assistant_model=drafter)` reaches our loop.

transformers has no registry for drafters; `_assisted_decoding` is where an assistant arrives. `install_hook` wraps
that method, and the validation before it, for our drafters only; everything else goes through untouched. The same
function works without any hook: `model.generate(**inputs, custom_generate=partial(speculative_decoding,
assistant_model=drafter))`.
"""

import copy
import functools
from typing import Any

import torch
from transformers import (
    Cache,
    DynamicCache,
    GenerationConfig,
    GenerationMixin,
    LogitsProcessorList,
    PreTrainedModel,
    StaticCache,
    StoppingCriteriaList,
)
from transformers.generation.configuration_utils import ALL_STATIC_CACHE_IMPLEMENTATIONS, GenerationMode
from transformers.generation.streamers import BaseStreamer
from transformers.utils import logging

from hf_mmspec.modeling import DraftBudget, Drafter
from hf_mmspec.modeling.binding import unwrap
from hf_mmspec.modeling.grouped_heads import teach_sdpa

from .answers import Answers
from .budget import BUDGET_FIELDS, Wishes
from .capture import capture
from .compiled import CompiledForward, compiled_forward
from .compiled_target import CompiledTarget
from .conversation_cache import ConversationCache
from .decoder_masks import takes_one_mask
from .few_rows import fast_for_few_rows
from .loop import decode
from .request_plan import plan_budget
from .side_by_side import check_no_budget, check_no_other_way
from .static_rows import room_of
from .statistics import SpeculativeOutput
from .target import Target
from .tree_mask import LayerWindows
from .visual_spans import visual_token_ids

logger = logging.get_logger(__name__)

_TREE_ATTENTION = ("sdpa", "eager")


def speculative_decoding(
    model: PreTrainedModel,
    input_ids: torch.LongTensor,
    logits_processor: LogitsProcessorList,
    stopping_criteria: StoppingCriteriaList,
    generation_config: GenerationConfig,
    assistant_model: Drafter,
    streamer: BaseStreamer | None = None,
    **model_kwargs: Any,
) -> SpeculativeOutput | torch.Tensor:
    """Decode a request of any batch size with a drafter; same tokens, scores and stops as `generate` without one.

    Called by `generate` (as `assistant_model=` or `custom_generate=`), not by users directly.

    Args:
        model: the target; called `self` by `generate`.
        input_ids: `(B, L)`, the expanded prompts, padded on the left (empty where the caller gave `inputs_embeds`).
        assistant_model: a drafter of `hf_mmspec.modeling` that fits the target.
        streamer: gets every token once, in order. `generate` does not hand its own `streamer` to a
            `custom_generate` function: bind it there together with `assistant_model`.

    Returns:
        `SpeculativeOutput` where `return_dict_in_generate=True`, else the token ids `(B, length)`.

    Raises:
        ValueError: the request or the drafter does not fit, before any forward of the decoder or the drafter.
    """
    _check_processes(model, assistant_model, generation_config, model_kwargs)
    model_kwargs = {name: value for name, value in model_kwargs.items() if name not in _NOT_FOR_THE_FORWARD}
    check_no_other_way(generation_config)
    _check_mode(generation_config.get_generation_mode(assistant_model))
    _check_model(model, generation_config)
    _check_drafter(assistant_model, generation_config)
    borrowed = assistant_model.bind(model)
    cache_is_users = getattr(model_kwargs.get("cache"), "_is_user_defined", False)
    model_kwargs["cache"] = _croppable_cache(model, model_kwargs.get("cache"), cache_is_users, generation_config)
    _check_request(model, assistant_model, input_ids, model_kwargs, generation_config)

    answers = Answers(input_ids, logits_processor, stopping_criteria, generation_config, streamer)
    plain, compiled = _as_it_runs(model, generation_config, model_kwargs["cache"], len(answers.rows))
    view = plain if compiled is None else model
    plan = plan_budget(model, assistant_model, generation_config, answers.tokens_left, len(answers.rows), view)
    cache_is_wanted = cache_is_users or bool(generation_config.return_dict_in_generate)
    feature_layers = assistant_model.feature_layers_of(model)
    with capture(plain.get_decoder(), feature_layers) as captured:
        room = answers.tokens_left + plan.most_tokens
        target = (
            Target(plain, model_kwargs, captured, room, cache_is_wanted)
            if compiled is None
            else CompiledTarget(compiled, model_kwargs, captured, room, cache_is_wanted, feature_layers)
        )
        cache = model_kwargs["cache"]
        conversation = cache if isinstance(cache, ConversationCache) else None
        with answers.ending():
            speculation = decode(target, assistant_model, borrowed, answers, plan, generation_config, conversation)
    plan.end(model.device.type != "cpu" or speculation.was_quiet)

    cache = target.finish(answers.new_tokens)
    if not generation_config.return_dict_in_generate:
        return answers.ids()
    return SpeculativeOutput(
        sequences=answers.ids(),
        scores=answers.steps("scores"),
        logits=answers.steps("logits"),
        attentions=answers.steps("attentions"),
        hidden_states=answers.steps("hidden_states"),
        cache=cache,
        speculation=speculation,
    )


def _as_it_runs(
    model: PreTrainedModel, generation_config: GenerationConfig, cache: Cache, rows: int
) -> tuple[PreTrainedModel, CompiledForward | None]:
    """The view of the target that reads the prompt, uncompiled; and what verifies compiled, None if nothing does."""
    compiled = compiled_forward(model, generation_config, cache)
    if compiled is None:
        return fast_for_few_rows(model), None
    if rows > 1 or isinstance(cache, ConversationCache) or takes_one_mask(model.config):
        logger.warning_once(
            "a compiled target runs uncompiled here: for a batch of several rows, a conversation that goes on in its "
            "cache, or a family that takes one attention mask and has layers of several kinds."
        )
        return compiled.view, None
    return compiled.view, compiled


# The inputs that hold the pixels of each modality.
_PIXELS = {"image": ("pixel_values", "image_pixel_values"), "video": ("pixel_values_videos",)}
# What `generate` hands to an assisted decoding method besides the forward's own arguments.
_NOT_FOR_THE_FORWARD = ("synced_gpus", "inputs_tensor", "assistant_tokenizer", "tokenizer")


def install_hook() -> None:
    """Teach `generate` about our drafters. Idempotent; other assistants keep the stock behaviour.

    `GenerationConfig` learns four fields (`draft_depth`, `draft_top_k`, `draft_total_tokens`, `draft_mode`, all
    `None`), so that they are accepted as `generate` arguments and typos in them still raise.
    """
    if hasattr(GenerationMixin._assisted_decoding, "__mmspec_stock__"):
        return
    teach_sdpa()
    for field in BUDGET_FIELDS:
        setattr(GenerationConfig, field, None)
    stock_decoding, stock_validation = GenerationMixin._assisted_decoding, GenerationMixin._validate_generation_mode

    @functools.wraps(stock_decoding)
    def _assisted_decoding(self, *args, assistant_model=None, **kwargs):
        drafter = unwrap(assistant_model)
        if isinstance(drafter, Drafter):
            return speculative_decoding(self, *args, assistant_model=drafter, **kwargs)
        return stock_decoding(self, *args, assistant_model=assistant_model, **kwargs)

    @functools.wraps(stock_validation)
    def _validate_generation_mode(self, generation_mode, generation_config, generation_mode_kwargs):
        drafter = unwrap(generation_mode_kwargs.get("assistant_model"))
        if isinstance(drafter, Drafter):
            # Here, before images are encoded, so that a wrong drafter costs nothing.
            _check_mode(generation_mode)
            check_no_other_way(generation_config, generation_mode_kwargs)
            _check_model(self, generation_config)
            _check_processes(self, drafter, generation_config, generation_mode_kwargs)
            _check_budget(generation_config)
            _check_drafter(drafter, generation_config)
            drafter.bind(self)
            # The stock check compares padded vocabulary sizes; `bind` has compared the real ones. It also refuses
            # several returned sequences, which are rows of a batch to us.
            generation_mode_kwargs = {k: v for k, v in generation_mode_kwargs.items() if k != "assistant_model"}
            generation_config = copy.copy(generation_config)
            generation_config.num_return_sequences = 1
        elif generation_mode == GenerationMode.ASSISTED_GENERATION:
            check_no_budget(generation_config)
        return stock_validation(self, generation_mode, generation_config, generation_mode_kwargs)

    _assisted_decoding.__dict__["__mmspec_stock__"] = stock_decoding
    GenerationMixin._assisted_decoding = _assisted_decoding
    GenerationMixin._validate_generation_mode = _validate_generation_mode


def _asked_budget(generation_config: GenerationConfig) -> dict[str, Any]:
    """The draft budget that this call asks for; None where it leaves the choice to us."""
    return {field: getattr(generation_config, field, None) for field in BUDGET_FIELDS}


def _check_budget(generation_config: GenerationConfig) -> None:
    """Raises ValueError for numbers that no budget has; what is not given counts as 1."""
    depth, top_k, total_tokens, mode = _asked_budget(generation_config).values()
    DraftBudget(*(1 if count is None else count for count in (depth, top_k, total_tokens)), mode or "tree")


def _check_drafter(drafter: Drafter, generation_config: GenerationConfig) -> None:
    drops = any(each.training and each.p > 0 for each in drafter.modules() if isinstance(each, torch.nn.Dropout))
    if drops and generation_config.do_sample:
        raise ValueError(
            f"{type(drafter).__name__} is in training mode, and its dropout would take random numbers of sampling: "
            "call drafter.eval() before."
        )
    if any(parameter.is_meta for parameter in drafter.parameters()):
        raise ValueError(
            f"{type(drafter).__name__} is on the meta device, without weights: load it with "
            "`AutoDrafter.from_pretrained`."
        )


def _check_processes(
    model: PreTrainedModel, drafter: Drafter, generation_config: GenerationConfig, model_kwargs: dict[str, Any]
) -> None:
    """Processes that run one model together must make the same forwards."""
    if model_kwargs.get("synced_gpus"):
        raise ValueError(
            "a drafter does not keep processes in step whose answers end at different times (synced_gpus): generate "
            "without `assistant_model`."
        )
    if (getattr(model, "_tp_size", None) or 1) > 1 and Wishes.of(generation_config, drafter).complete is None:
        raise ValueError(
            "the model is split over processes (tp_plan), each of which would choose a draft budget by its own clock: "
            "give draft_depth, draft_top_k, draft_total_tokens and draft_mode."
        )


def _check_mode(generation_mode: GenerationMode) -> None:
    if generation_mode != GenerationMode.ASSISTED_GENERATION:
        raise ValueError(
            f"a drafter works with greedy decoding and sampling, not with {generation_mode.value}: "
            "set num_beams=1 (and no constraints or penalty_alpha), or leave out `assistant_model`."
        )


def _check_model(model: PreTrainedModel, generation_config: GenerationConfig) -> None:
    """What can be said about the target before anything is computed."""
    name = type(model).__name__
    if model.config.is_encoder_decoder:
        raise ValueError(f"{name} is an encoder-decoder; drafters here are for decoder-only targets.")
    if generation_config.use_cache is False:
        raise ValueError("speculative decoding needs a cache: remove use_cache=False.")
    attention = model.get_decoder().config._attn_implementation
    if attention not in _TREE_ATTENTION:
        raise ValueError(
            f"{name} runs with {attention!r} attention, which takes no tree masks: load it with "
            'attn_implementation="sdpa" (or "eager").'
        )
    if getattr(model.config.get_text_config(decoder=True), "alibi", False):
        raise ValueError(
            f"{name} biases attention by distance (alibi), which its code works out of a plain mask alone."
        )
    try:
        LayerWindows.of(model.config.get_text_config(decoder=True))
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _croppable_cache(model, cache, cache_is_users: bool, generation_config: GenerationConfig) -> Cache:
    """The request's cache where it can be filled when the request is done, or an empty one in place of other kinds."""
    if isinstance(cache, ConversationCache):
        return cache
    if type(cache) in (DynamicCache, StaticCache) and not cache.offloading:
        return cache
    if cache_is_users:
        raise ValueError(
            f"`cache` is a {type(cache).__name__}; speculative decoding takes a DynamicCache or a StaticCache "
            "(without offloading), whose rows it can drop after verification."
        )
    kind = generation_config.cache_implementation
    if kind in ALL_STATIC_CACHE_IMPLEMENTATIONS or kind in ("offloaded", "quantized"):
        logger.warning_once(
            f"cache_implementation={kind!r} cannot be combined with a drafter, as every round writes and drops rows: "
            "keys and values are kept as they are, beside the weights. If they do not fit there, generate without "
            "`assistant_model`."
        )
        return DynamicCache(config=model.config.get_text_config(decoder=True))
    raise ValueError(
        f"{type(model).__name__} prepares a cache of type {type(cache).__name__}, which cannot drop single rows, as "
        "speculative decoding needs; generate without `assistant_model`."
    )


def _check_room(input_ids: torch.Tensor, model_kwargs: dict[str, Any], generation_config: GenerationConfig) -> None:
    """A static cache has to hold all tokens but the last, which nothing attends to."""
    cache = model_kwargs["cache"]
    room = room_of(cache.layers) if isinstance(cache, StaticCache) else None
    given = [each for each in (input_ids, model_kwargs.get("inputs_embeds")) if each is not None]
    columns = _mask_columns(model_kwargs.get("attention_mask"), generation_config)  # of a filled cache too
    prompt = max(columns, *(each.shape[1] for each in given))
    needed = prompt + generation_config.max_length - input_ids.shape[1] - 1
    if room is not None and room < needed:
        raise ValueError(
            f"`cache` is a StaticCache with room for {room} tokens, but this request may need {needed}: make it with "
            f"max_cache_len={needed}, or lower max_new_tokens."
        )


def _check_request(
    model: PreTrainedModel,
    drafter: Drafter,
    input_ids: torch.Tensor,
    model_kwargs: dict[str, Any],
    generation_config: GenerationConfig,
) -> None:
    """What can be said about the inputs before the first forward of the decoder."""
    embeds = model_kwargs.get("inputs_embeds")
    if input_ids.shape[1] == 0 and (embeds is None or embeds.shape[1] == 0):
        raise ValueError("the prompt is empty: give at least one token.")
    if embeds is not None and input_ids.shape[1] < embeds.shape[1] and drafter.config.owns_embeddings:
        raise ValueError(
            "the drafter has embeddings of its own, which it looks up by token: give the prompt as input_ids (with "
            "pixel_values), or use a drafter as wide as its target."
        )
    if isinstance(model_kwargs["cache"], ConversationCache) and input_ids.shape[0] > 1:
        raise ValueError(
            f"`cache` is a ConversationCache, which holds one conversation, but there are {input_ids.shape[0]} rows: "
            "give one prompt at a time (and leave out num_return_sequences)."
        )
    if model_kwargs.get("position_ids") is None:
        raise ValueError(f"{type(model).__name__} takes no position_ids, which a draft tree needs.")
    _check_mask(input_ids, model_kwargs, generation_config)
    _check_room(input_ids, model_kwargs, generation_config)
    if embeds is None:
        _check_images(model, _asked_ids(input_ids, model_kwargs, generation_config), model_kwargs)


def _check_mask(input_ids: torch.Tensor, model_kwargs: dict[str, Any], generation_config: GenerationConfig) -> None:
    """A column for each token of the prompt, or of a filled cache and what is new; a token in every row."""
    mask, embeds = model_kwargs.get("attention_mask"), model_kwargs.get("inputs_embeds")
    if mask is not None and mask.dim() != 2:
        return
    prompt = max(each.shape[1] for each in (input_ids, embeds) if each is not None)
    cached = int(model_kwargs["cache"].get_seq_length())
    columns = _mask_columns(mask, generation_config)
    if columns not in (prompt, prompt + cached):
        raise ValueError(
            f"attention_mask has {columns} columns for a prompt of {prompt} tokens and {cached} in the cache: give "
            "the one that the processor returns, with a column for each token."
        )
    if mask is not None and not mask.bool().any(dim=1).all():
        raise ValueError("attention_mask hides all tokens of a row: leave that row out, or give it a token.")


def _mask_columns(mask: torch.Tensor | None, generation_config: GenerationConfig) -> int:
    """`generate` drops a mask that hides nothing, and keeps its length."""
    return generation_config._mask_length if mask is None else mask.shape[1]


def _asked_ids(input_ids: torch.Tensor, model_kwargs: dict[str, Any], generation_config: GenerationConfig):
    """What the caller asks anew: with a filled cache they give all ids, or the new ones and a mask of all. The first
    one behind a cache is the last of an answer, which nothing has read yet, and models may say any token."""
    cached = int(model_kwargs["cache"].get_seq_length())
    is_whole = _mask_columns(model_kwargs.get("attention_mask"), generation_config) == input_ids.shape[1]
    behind = input_ids[:, cached:] if is_whole else input_ids
    return behind[:, 1:] if cached else behind


def _check_images(model: PreTrainedModel, asked: torch.Tensor, model_kwargs: dict[str, Any]) -> None:
    """Every placeholder that is asked anew needs pixels."""
    encoded = model_kwargs.get("mm_encoder_outputs") or {}
    for name, token in visual_token_ids(model.config).items():
        pixels = [model_kwargs[each] for each in _PIXELS[name] if model_kwargs.get(each) is not None]
        if encoded.get(name) is None and not pixels and bool((asked == token).any()):
            raise ValueError(
                f"the prompt has {name} placeholders (token {token}) but no {name} was given: pass all that the "
                f"processor returns, pixel values included, or remove the placeholder."
            )
