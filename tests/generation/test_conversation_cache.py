"""The cache of a conversation: what it keeps for the next prompt, and that every family goes on from it."""

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from hf_mmspec.generation import cache as tree_cache
from hf_mmspec.generation.conversation_cache import ConversationCache, PictureBlock
from hf_mmspec.modeling import ViSpecDrafter
from hf_mmspec.modeling.row_writes import with_room
from tests.families import dense, mrope, windows
from tests.families.parts import TEXT

from . import tiny
from .test_lossless_greedy import SHAPES

IMAGE = tiny.IMAGE_TOKEN
ALL = dense.FAMILIES | mrope.FAMILIES | windows.FAMILIES
CAUSAL = (
    "Gemma 3",
    "LLaVA-NeXT",
    "LLaVA-OneVision",
    "SmolVLM",
    "InternVL 3",
    "Qwen2-VL",
    "Qwen3-VL",
)


def filled(ids, digests=()):
    """A cache that has answered a prompt of `ids`; its rows say at which position they were written."""
    cache = ConversationCache(tiny.llava().config)
    rows = torch.arange(float(len(ids) - 1)).expand(1, 2, 8, -1).mT
    for layer in range(len(cache.layers)):
        cache.update(rows, rows, layer)
    cache.remember(ids, digests, [IMAGE])
    return cache


PICTURES = [5, 6, IMAGE, IMAGE, 7, 8, IMAGE, IMAGE, IMAGE, 9, 10]


@pytest.mark.parametrize(
    ("ids", "digests", "known", "length"),
    [
        (PICTURES, "ab", 2, 10),
        ([*PICTURES, 11, 12], "ab", 2, 10),
        ([*PICTURES, IMAGE], "abc", 2, 10),
        (PICTURES[:10], "ab", 2, 9),
        ([*PICTURES[:9], 99], "ab", 1, 5),  # the text behind b changed: back to before it
        (PICTURES[:6], "a", 1, 5),
        (PICTURES[:3], "a", 0, 1),  # smaller than before
        (PICTURES, "xb", 0, 1),  # other pixels, same ids
        (PICTURES, "ax", 1, 5),
        ([5, 99], "", 0, 0),
        ([], "", 0, 0),
    ],
)
def test_what_can_stay(ids, digests, known, length):
    cache = filled(PICTURES, "ab")
    assert cache.blocks == [PictureBlock(2, 4, ("a",)), PictureBlock(6, 9, ("b",))]
    assert cache.reuse(ids, digests) == known
    assert cache.get_seq_length() == length == len(cache.ids)
    assert cache.ids == PICTURES[:length] and len(cache.blocks) == known


@pytest.mark.parametrize(
    ("ids", "digests", "blocks"),
    [
        ([5, IMAGE, IMAGE, IMAGE, IMAGE, 6], "ab", [PictureBlock(1, 5, ("a", "b"))]),  # adjacent ones
        ([5, IMAGE, 6, IMAGE, 7], "a", [PictureBlock(1, 4, ("a",))]),  # one in two parts
        ([5, 6, 7], "a", [PictureBlock(0, 3, ("a",))]),  # placeholders that the config does not name
    ],
)
def test_pictures_that_cannot_be_told_apart_stay_together(ids, digests, blocks):
    assert filled(ids, digests).blocks == blocks


def test_a_cut_forgets_what_came_after():
    cache = filled(PICTURES, "ab")
    cache.update(torch.zeros(1, 2, 5, 8), torch.zeros(1, 2, 5, 8), 0)  # an interrupted forward: one layer only
    cache.cut(5)
    assert {layer.get_seq_length() for layer in cache.layers} == {5}
    assert cache.layers[0].keys[0, 0, :5, 0].tolist() == [0, 1, 2, 3, 4]


def test_a_full_buffer_that_is_interrupted_loses_nothing(monkeypatch):
    """Memory runs out, or Ctrl-C comes, while the values follow the keys into a larger buffer."""
    cache = filled([5] * 257)
    calls = []

    def breaks(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return with_room(*arguments)

    monkeypatch.setattr(tree_cache, "with_room", breaks)
    more = torch.ones(1, 2, 1, 8)
    with pytest.raises(KeyboardInterrupt):
        cache.update(more, more, 0)
    cache.cut(200)
    monkeypatch.undo()
    keys, values = cache.update(torch.ones(1, 2, 100, 8), torch.ones(1, 2, 100, 8), 0)
    for rows in (keys, values):
        assert rows.shape[2] == 300 and rows[0, 0, :200, 0].tolist() == list(range(200))


def test_layers_with_a_running_state_do_not_fit():
    assert ConversationCache.fits(tiny.sliding_llava())
    fields = {**TEXT, "num_hidden_layers": 4, "linear_num_key_heads": 2, "linear_num_value_heads": 2, "num_experts": 2}
    with torch.device("meta"):
        assert not ConversationCache.fits(AutoModelForCausalLM.from_config(CONFIG_MAPPING["qwen3_next"](**fields)))


@pytest.mark.parametrize("name", [*CAUSAL, "PaliGemma", "PaliGemma 2"])
def test_prompts_that_see_all_of_themselves_do_not_fit(name):
    assert ConversationCache.fits(ALL[name].model()) is (name in CAUSAL)


@pytest.mark.parametrize("drafts", [False, True], ids=["stock", "drafter"])
@pytest.mark.parametrize("name", CAUSAL)
def test_every_family_goes_on(name, drafts):
    """Text after an answer about pictures: the tokens of a run from scratch."""
    family = ALL[name]
    model = family.model()
    first, text = family.prompts(model)[1], torch.tensor([[30, 31, 32, 33]])
    arguments = dict(max_new_tokens=10, do_sample=False, eos_token_id=1)
    drafter = ViSpecDrafter.from_target(model, initializer_range=0.3)
    with_drafter = dict(assistant_model=drafter, **SHAPES["narrow"]) if drafts else {}
    pixels = {name: value for name, value in first.items() if value.shape != first["input_ids"].shape}
    cache, ids = ConversationCache(model.config), first["input_ids"]
    for turn in range(3):
        inputs = family.inputs(ids[0].tolist())
        expected = model.generate(**inputs, **pixels, **arguments)
        known = cache.reuse(ids[0].tolist(), ["a"])
        assert known == (turn > 0)
        positions = model._prepare_position_ids_for_generation(
            ids, {**{name: value for name, value in inputs.items() if name != "input_ids"}, **pixels}
        )
        request = {**inputs, **({} if known else pixels), "position_ids": positions, "cache": cache}
        actual = model.generate(**request, **arguments, **with_drafter)
        assert actual.tolist() == expected.tolist(), turn
        cache.remember(actual[0].tolist(), ["a"], [IMAGE])
        ids = torch.cat([actual, text + turn], dim=1)
