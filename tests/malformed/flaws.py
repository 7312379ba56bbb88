"""What can be wrong with a call of `generate`, one flaw after the other; a few are only odd, and should just work.

Each changes the arguments of a call that was right. Knows nothing of what should come of it.
"""

import random
from collections.abc import Callable
from typing import Any

import torch
from transformers import (
    DynamicCache,
    EncoderDecoderCache,
    GenerationConfig,
    LogitsProcessorList,
    StaticCache,
    StoppingCriteriaList,
)

from hf_mmspec.modeling import FAMILIES, ViSpecDrafter
from tests.generation import tiny
from tests.generation.doubles import RandomDrafter
from tests.generation.test_every_family import build

Arguments = dict[str, Any]
Flaw = Callable[[Arguments, Any, random.Random], None]


def setting(name: str, *values: Any) -> Flaw:
    """An argument with one of these values."""
    return lambda call, model, choose: call.update({name: choose.choice(values)})


def changed(name: str, *changes: Callable[[torch.Tensor], Any]) -> Flaw:
    """An input, where the call has it, after one of these changes."""

    def apply(call, model, choose):
        change = choose.choice(changes)
        if name in call:
            call[name] = change(call[name])

    return apply


def without(*names: str) -> Flaw:
    def apply(call, model, choose):
        for name in names:
            call.pop(name, None)

    return apply


def with_token(token: int) -> Flaw:
    """One of the prompt's tokens is another one."""

    def apply(call, model, choose):
        ids = call["input_ids"].clone()
        ids[choose.randrange(len(ids)), -1 - choose.randrange(2)] = token
        call["input_ids"] = ids

    return apply


def drafter_of(make: Callable[[Any], Any]) -> Flaw:
    """Another assistant, made for or from the target."""
    return lambda call, model, choose: call.update(assistant_model=make(model))


def _of_another_target(**fields):
    return lambda model: build("vispec", tiny.llava(**fields))


def _with_weights(value: float):
    def make(model):
        drafter = build("eagle", model)
        for parameter in drafter.parameters():
            torch.nn.init.constant_(parameter, value)
        return drafter

    return make


def _cache(make: Callable[[Any, int], Any]) -> Flaw:
    """A cache, made from the text config and the prompt's length."""

    def apply(call, model, choose):
        call["cache"] = make(model.config.get_text_config(decoder=True), call["input_ids"].shape[1])

    return apply


def _filled(rows: int, length: int):
    """A cache of another conversation."""

    def make(text, _):
        cache = DynamicCache(config=text)
        for layer in range(text.num_hidden_layers):
            shape = rows, text.num_key_value_heads, length, text.hidden_size // text.num_attention_heads
            cache.update(torch.zeros(shape), torch.zeros(shape), layer)
        return cache

    return make


def _with_embeddings(width: int | None) -> Flaw:
    """Embeddings beside the ids, of the right width or of another."""

    def apply(call, model, choose):
        rows, length = call["input_ids"].shape
        call["inputs_embeds"] = torch.zeros(rows, length, width or tiny.HIDDEN)

    return apply


def _stopping(result: Callable[[torch.Tensor], Any]) -> Flaw:
    return lambda call, *_: call.update(stopping_criteria=StoppingCriteriaList([lambda ids, scores, **_: result(ids)]))


def _processing(result: Callable[[torch.Tensor], Any]) -> Flaw:
    return lambda call, *_: call.update(logits_processor=LogitsProcessorList([lambda ids, scores: result(scores)]))


def _mask_with_hole(mask: torch.Tensor) -> torch.Tensor:
    mask = mask.clone()
    mask[:, mask.shape[1] // 2] = 0
    return mask


BUDGET_NUMBERS = (-1, -7, 1.5, float("nan"), "4", True, [3], 10**9, torch.tensor(2))
PICTURES = {
    "no pixels": without("pixel_values"),
    "no grids": without("image_grid_thw"),
    "no token types": without("mm_token_type_ids"),
    "fewer pictures": changed("pixel_values", lambda x: x[:-1], lambda x: x[:0]),
    "more pictures": changed("pixel_values", lambda x: torch.cat([x, x])),
    "pixels of another shape": changed("pixel_values", lambda x: x[0], lambda x: x[..., :-1], lambda x: x[None]),
    "pixels that are no tensor": changed("pixel_values", lambda x: x.tolist(), lambda x: "photo.jpg"),
    "pixels of another dtype": changed("pixel_values", torch.Tensor.double, torch.Tensor.half, torch.Tensor.int),
    "pixels that are not finite": changed("pixel_values", lambda x: x * float("nan"), lambda x: x + float("inf")),
    "other grids": changed("image_grid_thw", lambda x: x[:-1], lambda x: x + 2, lambda x: x * 0, lambda x: x.float()),
    "token types of another length": changed("mm_token_type_ids", lambda x: x[:, :-1]),
    "one placeholder more": with_token(tiny.IMAGE_TOKEN),
    "a video placeholder": with_token(118),
}
PROMPTS = {
    "a token beyond the vocabulary": with_token(tiny.VOCAB + 5),
    "a negative token": with_token(-3),
    "ids of another dtype": changed("input_ids", torch.Tensor.float, torch.Tensor.int, torch.Tensor.bool),
    "ids of another shape": changed(
        "input_ids", lambda x: x[0], lambda x: x[None], lambda x: x[:0], lambda x: x[:, :0]
    ),
    "ids that are no tensor": changed("input_ids", lambda x: x.tolist(), lambda x: "a prompt"),
    "no ids": without("input_ids"),
    "a mask of another shape": changed("attention_mask", lambda x: x[:, 1:], lambda x: x[0], lambda x: x[:0]),
    "a longer mask": changed("attention_mask", lambda x: torch.cat([x, x], dim=1)),
    "a mask of another dtype": changed("attention_mask", torch.Tensor.float, torch.Tensor.bool),
    "a mask of zeros": changed("attention_mask", lambda x: x * 0),
    "a mask with a hole": changed("attention_mask", _mask_with_hole),
    "padding on the right": changed("attention_mask", lambda x: x.flip(1)),
    "no mask": without("attention_mask"),
    "positions of another length": setting("position_ids", torch.arange(3)[None], torch.zeros(0, 0).long()),
    "embeddings, too": _with_embeddings(None),
    "embeddings of another width": _with_embeddings(7),
}
BUDGETS = {
    "depth": setting("draft_depth", *BUDGET_NUMBERS),
    "children": setting("draft_top_k", 0, *BUDGET_NUMBERS),
    "nodes": setting("draft_total_tokens", 0, *BUDGET_NUMBERS),
    "mode": setting("draft_mode", "forest", "", 3, "TREE", ["tree"], True),
    "a misspelt budget": setting("draft_dept", 3),
    "prompt lookup, too": setting("prompt_lookup_num_tokens", 3),
    "a tokenizer of the assistant": setting("assistant_tokenizer", "tokenizer", 3),
}
DRAFTERS = {
    "a drafter of a narrower target": drafter_of(_of_another_target(hidden_size=16)),
    "a drafter of a wider target": drafter_of(_of_another_target(hidden_size=64)),
    "a drafter of another vocabulary": drafter_of(_of_another_target(vocab_size=150)),
    "a drafter that reads layers there are not": drafter_of(
        lambda model: FAMILIES["eagle3"][1].from_target(model, feature_layers=[0, 9])
    ),
    "a drafter in half precision": drafter_of(lambda model: build("vispec", model).bfloat16()),
    "a drafter in double precision": drafter_of(lambda model: build("eagle3", model).double()),
    "a drafter without weights": drafter_of(lambda model: build("msd", model).to("meta")),
    "a drafter in training": drafter_of(lambda model: build("flash", model).train()),
    "a drafter that says nan": drafter_of(_with_weights(float("nan"))),
    "a drafter that says nothing": drafter_of(_with_weights(0.0)),
    "a class of drafters": drafter_of(lambda model: ViSpecDrafter),
    "a module": drafter_of(lambda model: torch.nn.Linear(2, 2)),
    "the target itself": drafter_of(lambda model: model),
    "a language model": drafter_of(lambda model: tiny.llama(seed=1)),
    "a folder's name": drafter_of(lambda model: "a/drafter"),
    "weights of a drafter": drafter_of(lambda model: build("vispec", model).state_dict()),
    "a double that fits": drafter_of(RandomDrafter),
}
SETTINGS = {
    "new tokens": setting("max_new_tokens", 0, -1, 2.5, "4", None),
    "length below the prompt": setting("max_length", 1, 0, -5),
    "least new tokens": setting("min_new_tokens", -1, 50, 1.5, "3"),
    "temperature": setting("temperature", 0.0, -1.0, "hot", float("nan")),
    "top_p": setting("top_p", 0.0, -1, 2.0, "all"),
    "top_k": setting("top_k", 0, -1, 2.5),
    "repetition penalty": setting("repetition_penalty", 0.0, -1.0, "some"),
    "n-grams": setting("no_repeat_ngram_size", -1, 1.5),
    "bad words": setting("bad_words_ids", [], [[]], [[-1]], [[tiny.VOCAB + 3]], "bad"),
    "bias": setting("sequence_bias", {}, {(): 1.0}, {(tiny.VOCAB + 3,): 1.0}, {(3,): "much"}),
    "suppressed": setting("suppress_tokens", [tiny.VOCAB + 3], [-1], list(range(tiny.VOCAB)), "all"),
    "eos": setting("eos_token_id", -1, tiny.VOCAB + 3, [], [[2]], "end", 2.0),
    "padding": setting("pad_token_id", None, -1, tiny.VOCAB + 3, "pad"),
    "beams": setting("num_beams", 0, 2, -1, 1.5),
    "returned sequences": setting("num_return_sequences", 0, 2, -1, 1.5),
    "beam groups": setting("num_beam_groups", 2),
    "contrast": setting("penalty_alpha", 0.6),
    "guidance": setting("guidance_scale", 1.5, "some"),
    "stop strings": setting("stop_strings", ["a"], "a", [], 3),
    "a tokenizer that is none": setting("tokenizer", "tokenizer", 3),
    "no caching": setting("use_cache", False),
    "cache implementation": setting("cache_implementation", "dynamic", "hybrid", 3),
    "chunks": setting("prefill_chunk_size", 0, -1, 3, 1.5),
    "attentions": setting("output_attentions", True),
    "a config that is none": setting("generation_config", {"max_new_tokens": 3}, "greedy", GenerationConfig),
    "an argument that nobody knows": setting("max_new_token", 3),
    "a streamer that is none": setting("streamer", "stdout", 3),
    "early exit": setting("assistant_early_exit", 1),
    "a grammar that allows nothing": setting("prefix_allowed_tokens_fn", lambda batch_id, ids: []),
    "a grammar that allows no token there is": setting("prefix_allowed_tokens_fn", lambda batch_id, ids: [10**6]),
    "a grammar that fails": setting("prefix_allowed_tokens_fn", lambda batch_id: [3]),
    "a criterion of another shape": _stopping(lambda ids: torch.zeros(3, 3, dtype=torch.bool)),
    "a criterion that returns nothing": _stopping(lambda ids: None),
    "a criterion that returns a bool": _stopping(lambda ids: ids.shape[1] > 40),
    "criteria that are no list": setting("stopping_criteria", 3, "stop"),
    "a processor that returns nothing": _processing(lambda scores: None),
    "a processor of another shape": _processing(lambda scores: scores[:, :5]),
    "a processor that says nan": _processing(lambda scores: scores * float("nan")),
    "a processor that refuses everything": _processing(lambda scores: scores - float("inf")),
}
CACHES = {
    "a cache that is none": setting("cache", "cache", 3, (), ((torch.zeros(1), torch.zeros(1)),)),
    "an encoder-decoder's cache": _cache(lambda *_: EncoderDecoderCache(DynamicCache(), DynamicCache())),
    "a static cache that is too small": _cache(
        lambda text, length: StaticCache(config=text, max_cache_len=length // 2)
    ),
    "a cache of a longer conversation": _cache(_filled(1, 90)),
    "a cache of another batch": _cache(_filled(4, 2)),
    "a cache of another conversation": _cache(_filled(1, 3)),
    "an old name": lambda call, *_: call.update(past_key_values=DynamicCache()),
}
FLAWS: dict[str, Flaw] = PICTURES | PROMPTS | BUDGETS | DRAFTERS | SETTINGS | CACHES
# They look at nothing that another flaw may have changed.
SECOND: dict[str, Flaw] = BUDGETS | DRAFTERS | SETTINGS
