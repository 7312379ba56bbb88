"""Reordered weights multiply as the layer does, follow every change of it, and go when it goes."""

import gc
import threading

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from hf_mmspec.generation import few_rows, reordered_weights
from hf_mmspec.generation.reordered_weights import SIZES, ReorderedWeight, size_for, sizes_with_room
from hf_mmspec.modeling import ViSpecDrafter

from . import tiny
from .turning import WAYS, turned

pytestmark = pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="MKL reorders the weights")


def assert_product(reordered, layer, rows):
    x = torch.randn(1, rows, layer.in_features)
    torch.testing.assert_close(reordered.product(x, layer.bias), layer(x))


@torch.no_grad()
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [1, 4, 15, 16, 17, 32])
@pytest.mark.parametrize("sizes", [(24, 40), (192, 576), (7, 3)])
def test_the_product_is_that_of_the_layer(rows, bias, sizes):
    layer = nn.Linear(*sizes, bias=bias)
    assert_product(ReorderedWeight(layer.weight, size_for(rows)), layer, rows)


@torch.no_grad()
def test_any_shape_and_stride():
    layer = nn.Linear(24, 40)
    reordered = ReorderedWeight(layer.weight, 16)
    for x in (torch.randn(24, 16).t(), torch.randn(2, 3, 24), torch.randn(3, 2, 24).transpose(0, 1)):
        torch.testing.assert_close(reordered.product(x, layer.bias), layer(x))


@torch.no_grad()
@pytest.mark.parametrize(
    "change",
    [
        lambda weight: weight.add_(0.1),
        lambda weight: weight[3, 5].add_(0.01),
        lambda weight: weight.data.mul_(1.01),  # as adapters are merged: no version counts it
        lambda weight: weight.copy_(weight[torch.arange(len(weight)).flip(0)]),
        lambda weight: weight.copy_(weight[:, torch.arange(weight.shape[1]).flip(0)]),
    ],
    ids=["all", "one number", "data", "rows swapped", "columns swapped"],
)
def test_a_changed_weight_is_reordered_anew(change):
    layer = nn.Linear(24, 40)
    ReorderedWeight(layer.weight, 16)
    change(layer.weight)
    assert_product(ReorderedWeight(layer.weight, 16), layer, 9)


@torch.no_grad()
def test_both_sizes_of_a_changed_weight():
    layer = nn.Linear(24, 40)
    for size in SIZES:
        ReorderedWeight(layer.weight, size)
    layer.weight.add_(1.0)
    for size in SIZES:
        assert_product(ReorderedWeight(layer.weight, size), layer, size)


@torch.no_grad()
def test_an_unchanged_weight_is_reordered_once(monkeypatch):
    layer = nn.Linear(24, 40)
    first = ReorderedWeight(layer.weight, 16)
    assert ReorderedWeight(layer.weight, 16)._reordered is first._reordered
    assert ReorderedWeight(layer.weight, 32)._reordered is not first._reordered


@torch.no_grad()
def test_another_number_of_threads():
    layer, before = nn.Linear(192, 576), torch.get_num_threads()
    ReorderedWeight(layer.weight, 16)
    torch.set_num_threads(3 - min(before, 2))
    try:
        assert_product(ReorderedWeight(layer.weight, 16), layer, 16)
    finally:
        torch.set_num_threads(before)


@torch.no_grad()
def test_reordered_forms_go_with_the_weight():
    layer = nn.Linear(24, 40)
    ReorderedWeight(layer.weight, 16)
    before = len(reordered_weights._reordered)
    del layer
    gc.collect()
    assert len(reordered_weights._reordered) == before - 1


def test_under_inference_mode():
    with torch.inference_mode():
        layer = nn.Linear(24, 40)
        assert_product(ReorderedWeight(layer.weight, 16), layer, 9)


@torch.no_grad()
def test_threads_of_one_process():
    layer, failures = nn.Linear(24, 40), []

    def work():
        try:
            for rows in (4, 16, 32) * 5:
                assert_product(ReorderedWeight(layer.weight, size_for(rows)), layer, rows)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


@pytest.mark.parametrize("most, sizes", [(255, ()), (256, (16,)), (511, (16,)), (512, (16, 32)), (1 << 20, (16, 32))])
def test_as_many_sizes_as_memory_is_spared_for(most, sizes, monkeypatch):
    weights = [torch.zeros(8, 4), torch.zeros(16, 2)]
    monkeypatch.setattr(reordered_weights, "_MOST_BYTES", most)
    assert sizes_with_room(weights) == sizes


def test_nothing_is_reordered_where_mkl_is_missing(monkeypatch):
    weights = [torch.zeros(8, 4)]
    assert sizes_with_room(weights) == SIZES and sizes_with_room([]) == ()
    monkeypatch.setattr("torch.backends.mkl.is_available", lambda: False)
    assert sizes_with_room(weights) == ()


def test_where_only_the_smaller_size_fits_more_rows_are_turned(monkeypatch):
    target = tiny.llava()
    weights = sum(layer.weight.nbytes for layer in few_rows._layers_of(target))
    monkeypatch.setattr(reordered_weights, "_MOST_BYTES", weights)
    with turned("reordered"):
        assert few_rows.ways_of(target) == dict.fromkeys(range(4, 17), "reordered")


@torch.no_grad()
def test_another_dtype_and_autocast_are_left_to_the_layer():
    with turned("reordered"):
        head = few_rows.fast_for_few_rows(tiny.llava()).get_output_embeddings()
    x = torch.randn(1, 8, head.in_features)
    usual = nn.functional.linear(x, head.weight)
    torch.testing.assert_close(head(x), usual)
    with torch.autocast("cpu", torch.bfloat16):
        given = head(x)
        assert given.dtype == torch.bfloat16 and torch.equal(given, nn.functional.linear(x, head.weight))


@pytest.mark.parametrize("way", WAYS)
def test_measuring_knows_no_autocast(way):
    layers = [nn.Linear(64, 96, bias=False)]
    layers[0].forward = lambda x: pytest.fail("autocast") if torch.is_autocast_enabled("cpu") else x
    with torch.autocast("cpu", torch.bfloat16):
        few_rows._measure(layers, way, few_rows.SIZES)


def test_requests_around_training_and_merging():
    """What was reordered for one request is not what the next one multiplies with."""
    target, inputs = tiny.llava(), tiny.llava_prompt(1)
    drafter = ViSpecDrafter.from_target(target)
    options = {"do_sample": False, "max_new_tokens": 10}
    shape = {"draft_depth": 3, "draft_top_k": 2, "draft_total_tokens": 8}
    torch.manual_seed(3)

    def assert_same(model):
        expected = model.generate(**inputs, **options)
        products.clear()
        assert torch.equal(model.generate(**inputs, **options, **shape, assistant_model=drafter), expected)
        assert products.of(model)
        return expected

    with turned("reordered") as products:
        first = assert_same(target)
        with torch.no_grad():
            for parameter in target.get_decoder().layers.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
        trained = assert_same(target)
        wrapped = get_peft_model(target, LoraConfig(target_modules=["q_proj", "down_proj"], init_lora_weights=False))
        assert_same(wrapped)
        wrapped.merge_adapter()
        merged = assert_same(wrapped)
    assert not torch.equal(first, trained) and not torch.equal(trained, merged)
