"""Caches: rollback in place, windows, continuation of a conversation, and no leaks between or after calls."""

import gc

import pytest
import torch
from transformers import DynamicCache, EncoderDecoderCache, StaticCache

from hf_mmspec.generation.cache import TreeCache
from tests.families import windows

from . import tiny
from .doubles import OracleDrafter, RandomDrafter
from .test_lossless_greedy import SHAPES, assert_same, new_tokens, run


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("shape", SHAPES)
def test_sliding_window_before_at_and_beyond(attention, shape):
    """transformers #48280: eager crashed and sdpa was silently wrong once a burst reached the window."""
    model = tiny.sliding_llava(attention, window=16)
    for images, length in ((0, 6), (0, 14), (1, 12)):
        inputs = tiny.llava_prompt(images, images, length)
        expected = run(model, inputs, max_new_tokens=40)
        for drafter in (RandomDrafter(model), OracleDrafter(model, new_tokens(expected[0], inputs))):
            actual = run(model, inputs, max_new_tokens=40, assistant_model=drafter, **SHAPES[shape])
            assert_same(expected, actual, (images, length))


def test_the_window_is_the_models_not_the_caches():
    """A user's `DynamicCache()` knows no windows, and has no layers before the first forward."""
    model, inputs = tiny.sliding_llava(window=8), tiny.llava_prompt(0, 1)
    expected = run(model, inputs, cache=DynamicCache(), eos_token_id=1)
    drafter = OracleDrafter(model, new_tokens(expected[0], inputs))
    for shape in SHAPES.values():
        actual = run(model, inputs, cache=DynamicCache(), eos_token_id=1, assistant_model=drafter, **shape)
        assert_same(expected, actual, shape)


STATIC_TARGETS = {**tiny.FAMILIES, "windows": lambda: tiny.sliding_llava(window=16)}


def static_prompt(family, seed, images=1):
    return tiny.PROMPTS.get(family, tiny.llava_prompt)(seed, images)


def assert_same_static(expected, actual):
    """Ids, and the rows that a static cache has seen; what lies behind them means nothing."""
    (plain, _), (output, _) = expected, actual
    assert output.sequences.tolist() == plain.sequences.tolist()
    assert type(output.cache) is StaticCache
    length = int(plain.cache.get_seq_length())
    assert int(output.cache.get_seq_length()) == length
    for mine, other in zip(output.cache.layers, plain.cache.layers, strict=True):
        if other.keys is None:  # it reads another layer's rows
            continue
        rows = min(length, other.max_cache_len)
        torch.testing.assert_close(mine.keys[:, :, :rows], other.keys[:, :, :rows], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(mine.values[:, :, :rows], other.values[:, :, :rows], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", STATIC_TARGETS)
@pytest.mark.parametrize("setting", ["argument", "generation_config"])
def test_static_cache(family, setting, caplog):
    """transformers #32946: as an argument or from the checkpoint, filled as without a drafter, without a warning."""
    model, inputs = STATIC_TARGETS[family](), static_prompt(family, 2)
    kwargs = {"cache_implementation": "static", "eos_token_id": 1}
    if setting == "generation_config":
        model.generation_config.cache_implementation = kwargs.pop("cache_implementation")
    expected = run(model, inputs, **kwargs)
    caplog.clear()
    for shape in SHAPES.values():
        drafter = OracleDrafter(model, new_tokens(expected[0], inputs))
        assert_same_static(expected, run(model, inputs, assistant_model=drafter, **kwargs, **shape))
    assert not caplog.records


def test_a_static_cache_whose_layers_share_rows():
    """Gemma 3n: the last layers have no cache of their own, so no room and no window either."""
    model, inputs = windows.FAMILIES["Gemma 3n"].model(), tiny.llava_prompt(2, images=0)
    kwargs = {"cache_implementation": "static", "eos_token_id": 1}
    expected = run(model, inputs, **kwargs)
    drafter = OracleDrafter(model, new_tokens(expected[0], inputs))
    assert_same_static(expected, run(model, inputs, assistant_model=drafter, **kwargs, **SHAPES["narrow"]))


def test_a_users_dynamic_cache_whose_layers_share_rows():
    """It gets as many layers as without a drafter: none for those that have no rows of their own."""
    model, inputs = windows.FAMILIES["Gemma 3n"].model(), tiny.llava_prompt(2, images=0)
    expected = run(model, inputs, cache=DynamicCache(), eos_token_id=1)
    drafter = OracleDrafter(model, new_tokens(expected[0], inputs))
    actual = run(model, inputs, cache=DynamicCache(), eos_token_id=1, assistant_model=drafter, **SHAPES["narrow"])
    assert_same(expected, actual, "shared rows")


@pytest.mark.parametrize("family", STATIC_TARGETS)
def test_a_users_static_cache_over_two_turns(family):
    """Its tensors are written where they are, and the second turn goes on from what the first left."""
    model, inputs = STATIC_TARGETS[family](), static_prompt(family, 4)

    def two_turns(**kwargs):
        cache = StaticCache(config=model.config.get_text_config(), max_cache_len=200)
        first, _ = run(model, inputs, cache=cache, max_new_tokens=8, eos_token_id=1, **kwargs)
        address = cache.layers[0].keys.data_ptr()
        ids = torch.cat([first.sequences, torch.tensor([[30, 31, 32, 33]])], dim=1)
        second = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        output = run(model, second, cache=cache, eos_token_id=1, **kwargs)
        assert output[0].cache is cache and cache.layers[0].keys.data_ptr() == address
        return output

    assert_same_static(two_turns(), two_turns(assistant_model=RandomDrafter(model), **SHAPES["wide"]))


def test_a_static_cache_that_is_too_small_is_refused_before_any_work():
    model, inputs = tiny.llava(), tiny.llava_prompt(2)
    length = inputs["input_ids"].shape[1]
    for room, refused in ((length + 2, True), (length + 3, False)):
        cache = StaticCache(config=model.config.get_text_config(), max_cache_len=room)
        request = dict(max_new_tokens=4, cache=cache, eos_token_id=1, **SHAPES["wide"])
        request["assistant_model"] = RandomDrafter(model)
        if refused:
            with pytest.raises(ValueError, match=f"max_cache_len={length + 3}"):
                model.generate(**inputs, **request)
            assert cache.get_seq_length() == 0
        else:
            assert model.generate(**inputs, **request).shape[1] == length + 4


def test_room_for_what_is_cached_is_counted_too():
    """New ids alone and a mask that hides nothing, which `generate` drops: the cache holds the rest of the prompt."""
    model, inputs = tiny.llama(), tiny.llava_prompt(2, images=0, length=40)
    ids, cache = inputs["input_ids"], StaticCache(config=model.config, max_cache_len=50)
    model(input_ids=ids[:, :-4], cache=cache, use_cache=True)
    request = dict(attention_mask=torch.ones_like(ids), cache=cache, max_new_tokens=20, do_sample=False)
    with pytest.raises(ValueError, match=f"max_cache_len={ids.shape[1] + 19}"):
        model.generate(input_ids=ids[:, -4:], **request, assistant_model=RandomDrafter(model))


def test_caches_that_cannot_be_filled():
    """A user's is refused, one that `generate` would make is replaced with a warning."""
    model, inputs = tiny.llava(), tiny.llava_prompt(2)
    with pytest.raises(ValueError, match="is a EncoderDecoderCache"):
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        model.generate(**inputs, max_new_tokens=4, cache=cache, assistant_model=RandomDrafter(model))
    expected = run(model, inputs)
    kwargs = dict(cache_implementation="quantized", **SHAPES["wide"])
    model._prepare_cache_for_generation = lambda config, kwargs, *_: kwargs.update(cache=Quantized())
    assert_same(expected, run(model, inputs, assistant_model=RandomDrafter(model), **kwargs), "quantized")


class Quantized(DynamicCache):
    """Stands for transformers' QuantizedCache, which needs a package for its kernels."""


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("shape", SHAPES)
def test_second_turn_on_the_cache_of_the_first(family, shape):
    """transformers #31096: turn 2 is text only, the image stays in the cache and its pixels are not needed again."""
    model, inputs = tiny.FAMILIES[family](), tiny.PROMPTS[family](4, 1)

    def two_turns(**kwargs):
        cache = DynamicCache(config=model.config.get_text_config())
        first, _ = run(model, inputs, cache=cache, max_new_tokens=8, **kwargs)
        assert first.cache is cache and cache.get_seq_length() == first.sequences.shape[1] - 1
        ids = torch.cat([first.sequences, torch.tensor([[30, 31, 32, 33]])], dim=1)
        return run(model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, cache=cache, **kwargs)

    expected = two_turns()
    assert_same(expected, two_turns(assistant_model=RandomDrafter(model), **SHAPES[shape]), shape)


@pytest.mark.parametrize("only_new", [True, False])
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_new_image_without_pixels_in_the_second_turn(family, only_new):
    """Refused, whether the caller passes all ids or, with a mask of all, the new ones."""
    model, inputs = tiny.FAMILIES[family](), tiny.PROMPTS[family](4, 1)
    cache = DynamicCache(config=model.config.get_text_config())
    first, _ = run(model, inputs, cache=cache, max_new_tokens=8)
    ids = torch.cat([first.sequences, torch.full((1, 4), tiny.IMAGE_TOKEN)], dim=1)
    second = {"input_ids": ids[:, -5:] if only_new else ids, "attention_mask": torch.ones_like(ids)}
    with pytest.raises(ValueError, match="no image was given"):
        run(model, second, cache=cache, assistant_model=RandomDrafter(model))


@pytest.mark.parametrize("only_new", [True, False])
def test_the_first_answer_ended_in_a_placeholder(only_new):
    """A token that the model said itself, and that is not in the cache yet, asks for no picture."""
    model, inputs = tiny.llava(), tiny.llava_prompt(4, 1)

    def two_turns(**kwargs):
        cache = DynamicCache(config=model.config.get_text_config())
        first, _ = run(model, inputs, cache=cache, max_new_tokens=8)
        said = torch.tensor([[tiny.IMAGE_TOKEN, 30, 31, 32]])
        ids = torch.cat([first.sequences[:, :-1], said], dim=1)
        second = {"input_ids": ids[:, -4:] if only_new else ids, "attention_mask": torch.ones_like(ids)}
        return run(model, second, cache=cache, **kwargs)

    assert_same(two_turns(), two_turns(assistant_model=RandomDrafter(model)), only_new)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_left_padding_changes_nothing(family):
    """A padded prompt gives what plain `generate` gives, and the drafter sees no padding."""
    model, inputs = tiny.FAMILIES[family](), tiny.PROMPTS[family](5, 1)
    for name in ("input_ids", "attention_mask", "mm_token_type_ids"):
        if name in inputs:
            inputs[name] = torch.nn.functional.pad(inputs[name], (3, 0), value=0)
    expected = run(model, inputs)
    for shape in SHAPES.values():
        drafter = OracleDrafter(model, new_tokens(expected[0], inputs))
        assert_same(expected, run(model, inputs, assistant_model=drafter, **shape), shape)
        assert all(p.features.shape[1] == inputs["input_ids"].shape[1] - 3 for p in drafter.prompts)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_order_of_calls_does_not_matter(family):
    """transformers #43952: positions of one call leaked into the next (image A, image B of another size, text)."""
    model = tiny.FAMILIES[family]()
    drafter = RandomDrafter(model)
    for seed, images in ((0, 1), (1, 1), (2, 0), (3, 2), (0, 1)):
        inputs = tiny.PROMPTS[family](seed, images)
        fresh = run(tiny.FAMILIES[family](), inputs)
        assert_same(fresh, run(model, inputs, assistant_model=drafter, **SHAPES["wide"]), (seed, images))


class Interrupted(Exception):
    pass


def test_an_interrupted_call_leaves_nothing_behind():
    """An exception in a round: the next call is right, no hook stays, the user's cache is as before."""

    class Breaks(RandomDrafter):
        def extend(self, state, features, next_tokens):
            raise Interrupted

    model, inputs = tiny.llava(), tiny.llava_prompt(1)
    expected = run(model, inputs)
    cache = DynamicCache(config=model.config.get_text_config())
    with pytest.raises(Interrupted):
        run(model, inputs, cache=cache, assistant_model=Breaks(model), **SHAPES["wide"])
    assert cache.get_seq_length() == 0
    assert not model.get_decoder()._forward_hooks and not model.get_decoder()._forward_pre_hooks
    assert_same(expected, run(model, inputs, assistant_model=RandomDrafter(model), **SHAPES["wide"]), "after")


def test_memory_is_flat_over_many_calls():
    """vllm #15506: no tensor of an earlier call stays alive, drafting on or off."""
    model, inputs = tiny.llava(), tiny.llava_prompt(1)
    drafter = RandomDrafter(model)
    shapes = [SHAPES["wide"], SHAPES["none"], SHAPES["chain"]]

    def alive():
        gc.collect()
        return sum(1 for o in gc.get_objects() if isinstance(o, torch.Tensor))

    counts = []
    for index in range(30):
        model.generate(**inputs, max_new_tokens=6, do_sample=False, assistant_model=drafter, **shapes[index % 3])
        drafter.prompts.clear()
        if index % 3 == 2:
            counts.append(alive())
    assert len(set(counts[1:])) == 1


def test_keep_moves_rows_in_place():
    """Write n rows, keep k: same storage, right rows; more rows than room make more room."""
    cache, generator = TreeCache(num_layers=2, capacity=8), torch.Generator().manual_seed(0)
    rows = torch.randn(1, 2, 7, 4, generator=generator)
    for layer in range(2):
        cache.update(rows, -rows, layer)
    address = cache.layers[0].keys.data_ptr()
    cache.keep([3], [[0, 2]])
    assert cache.get_seq_length() == 5 and cache.layers[0].keys.data_ptr() == address
    torch.testing.assert_close(cache.layers[1].values[:, :, :5], -rows[:, :, [0, 1, 2, 3, 5]])
    keys, _ = cache.update(rows, rows, 0)
    torch.testing.assert_close(keys, torch.cat([rows[:, :, [0, 1, 2, 3, 5]], rows], dim=2))
