"""Products of a few rows in other ways: the same numbers, from a view that leaves the model as it is."""

from itertools import product

import pytest
import torch
from rich.console import Console
from torch import nn

from hf_mmspec.console import doctor
from hf_mmspec.generation import few_rows
from hf_mmspec.generation.cost_cache import Measured
from hf_mmspec.generation.costs import cost_record
from hf_mmspec.generation.few_rows import FewRowsLinear, fast_for_few_rows, transposed_product, ways_of
from hf_mmspec.modeling import FAMILIES, ViSpecDrafter
from tests.slow_parameters import others_slow

from . import tiny
from .batches import batch_of
from .doubles import OracleDrafter
from .test_lossless_greedy import REQUESTS, SHAPES, assert_same, new_tokens, run
from .turning import WAYS, turned


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 4), (8,), (2, 3, 5), (1, 32)])
def test_the_product_is_that_of_the_layer(shape, bias):
    layer, x = nn.Linear(24, 40, bias=bias), torch.randn(*shape, 24)
    given, wanted = transposed_product(x, layer.weight, layer.bias), layer(x)
    assert given.shape == wanted.shape and given.is_contiguous()
    torch.testing.assert_close(given, wanted)


def test_the_view_shares_weights_and_the_target_stays_as_it_is():
    target = tiny.llava()
    with turned(rows_4=0.95):
        view = fast_for_few_rows(target)
    layers = [each for each in view.modules() if isinstance(each, FewRowsLinear)]
    assert all(layer.ways == dict.fromkeys(range(5, 33), "turned") for layer in layers)
    assert view.get_output_embeddings() in layers and len(layers) == 7 * len(target.get_decoder().layers) + 1
    assert not any(isinstance(each, FewRowsLinear) for each in target.modules())
    assert all(a is b for a, b in zip(view.parameters(), target.parameters(), strict=True))
    assert view.model.vision_tower is target.model.vision_tower
    assert not any(hasattr(each, "ways") for each in target.modules())


def test_only_as_many_rows_are_turned_as_were_faster(monkeypatch):
    with turned(rows_4=0.95, rows_32=1.2):
        view = fast_for_few_rows(tiny.llava())
    turned_rows = []
    product = few_rows.transposed_product
    monkeypatch.setattr(
        few_rows, "transposed_product", lambda x, *rest: turned_rows.append(x.shape) or product(x, *rest)
    )
    head = view.get_output_embeddings()
    for rows in (1, 4, 5, 16, 17, 300):
        head(torch.ones(1, rows, head.in_features))
    assert [shape[1] for shape in turned_rows] == [5, 16]


def test_each_number_of_rows_has_its_fastest_way(monkeypatch):
    shares = {"turned": {4: 0.8, 8: 0.6, 16: 0.5, 32: 0.6}, "reordered": {4: 0.95, 8: 0.7, 16: 0.4, 32: 0.5}}
    monkeypatch.setattr(few_rows, "_LEAST_WEIGHTS", 0)
    monkeypatch.setattr(few_rows, "remembered", lambda key, measure, needed: Measured(shares[key.split("-")[-1]]))
    ways = ways_of(tiny.llava())
    assert ways == {4: "turned", **dict.fromkeys(range(5, 9), "turned"), **dict.fromkeys(range(9, 33), "reordered")}


@pytest.mark.parametrize(
    "shape, request_, way",
    others_slow(
        product(SHAPES, REQUESTS, WAYS),
        [
            *product(SHAPES, ["plain"], WAYS),
            *product(["narrow"], ["several_eos", "prefix_constraint", "custom_processor"], WAYS),
        ],
    ),
)
def test_the_same_answers(shape, request_, way):
    target, inputs = tiny.llava(), tiny.llava_prompt(1)
    expected = run(target, inputs, **REQUESTS[request_]())
    drafter = OracleDrafter(target, new_tokens(expected[0], inputs))
    with turned(way) as products:
        actual = run(target, inputs, assistant_model=drafter, **SHAPES[shape], **REQUESTS[request_]())
    assert_same(expected, actual, shape)
    assert products.of(target)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("family", FAMILIES)
def test_drafters_read_the_views_features_and_have_views_of_their_own(family, way):
    target, inputs = tiny.qwen(), tiny.qwen_prompt(2)
    taps = {"feature_layers": [0, 1]} if family == "eagle3" else {}
    drafter = FAMILIES[family][1].from_target(target, **taps)
    expected = run(target, inputs)
    usual = run(target, inputs, assistant_model=drafter, **SHAPES["wide"])
    with turned(way) as products:
        actual = run(target, inputs, assistant_model=drafter, **SHAPES["wide"])
    assert_same(expected, actual, family)
    assert products.of(target) and products.of(drafter)
    assert actual[0].speculation.accepted == usual[0].speculation.accepted


@pytest.mark.parametrize("way", WAYS)
def test_batches(way):
    target = tiny.llava()
    inputs = batch_of([tiny.llava_prompt(1, 1, 6), tiny.llava_prompt(2, 0, 9), tiny.llava_prompt(3, 1, 3)])
    options = {"do_sample": False, "max_new_tokens": 14}
    expected = target.generate(**inputs, **options)
    with turned(way) as products:
        drafter = ViSpecDrafter.from_target(target)
        actual = target.generate(**inputs, **options, **SHAPES["narrow"], assistant_model=drafter)
    assert torch.equal(actual, expected)
    assert products.of(target) and products.of(drafter)


def test_samples():
    target, inputs = tiny.llava(), tiny.llava_prompt(1)
    options = {"do_sample": True, "temperature": 0.9, "max_new_tokens": 14}
    torch.manual_seed(4)
    expected = target.generate(**inputs, **options)
    drafter = ViSpecDrafter.from_target(target)
    torch.manual_seed(4)
    with turned() as products:
        actual = target.generate(**inputs, **options, **SHAPES["narrow"], assistant_model=drafter)
    assert torch.equal(actual, expected)
    assert products.of(target) and products.of(drafter)


def test_hooks_of_the_user_run_in_the_view():
    target, inputs, calls = tiny.llava(), tiny.llava_prompt(1), []
    expected = run(target, inputs)
    target.lm_head.register_forward_hook(lambda *_: calls.append(1))
    with turned() as products:
        drafter = OracleDrafter(target, new_tokens(expected[0], inputs))
        actual = run(target, inputs, assistant_model=drafter, **SHAPES["narrow"])
    assert_same(expected, actual, "hook")
    assert len(calls) == 1 + actual[0].speculation.rounds and products.of(target)


def _patched(target):
    decoder = target.get_decoder()
    decoder.forward = decoder.forward
    return target


def _compiled(target):
    target.lm_head.compile()
    return target


class PackedTensor(torch.Tensor):
    """As torchao's: it says the dtype that it stands for, and its layer is a plain `nn.Linear`."""


def _packed(target):
    for layer in target.modules():
        if isinstance(layer, nn.Linear):
            layer.weight = nn.Parameter(layer.weight.detach().as_subclass(PackedTensor), requires_grad=False)
    return target


@pytest.mark.parametrize(
    "change",
    [lambda target: target.bfloat16(), lambda target: target.to("meta"), _patched, _compiled, _packed],
    ids=["half precision", "elsewhere", "patched", "compiled", "packed by torchao"],
)
def test_other_targets_are_left_alone(change):
    target = change(tiny.llava())
    with turned():
        assert not ways_of(target) and fast_for_few_rows(target) is target


def test_doctor_says_how_rows_are_multiplied():
    console = Console(record=True, width=200)
    with turned(rows_4=0.95), pytest.MonkeyPatch.context() as patch:
        patch.setattr(doctor, "forget", lambda: None)
        patch.setattr(doctor, "measure_verify", lambda *_, **__: {1: 0.01})
        doctor.show_costs(console, tiny.llava())
    assert "since it is faster: 5 to 32 turned" in console.export_text()


def test_small_targets_are_not_even_measured(monkeypatch):
    monkeypatch.setattr(few_rows, "_measure", lambda *_: pytest.fail("measured"))
    target = tiny.llava()
    assert fast_for_few_rows(target) is target


def test_costs_of_the_view_have_files_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr("hf_mmspec.generation.cost_cache.cache_folder", lambda: tmp_path)
    target = tiny.llava()
    drafter = ViSpecDrafter.from_target(target)
    usual = cost_record(target, drafter).keys
    for way in WAYS:
        with turned(way):
            other, of_view = (cost_record(each, drafter).keys for each in (target, fast_for_few_rows(target)))
        assert other == of_view and all(key.endswith(f"-{way}") for key in other)
        assert not set(other) & set(usual)


@pytest.mark.parametrize("way", WAYS)
def test_the_share_is_measured_for_every_size(way):
    layers = [nn.Linear(64, 96, bias=False), nn.Linear(96, 64, bias=False)]
    for layer in layers:
        layer.register_forward_hook(lambda *_: pytest.fail("measuring is no request"))
    measured = few_rows._measure(layers, way, few_rows.SIZES)
    assert measured.numbers.keys() == set(few_rows.SIZES) and all(share > 0 for share in measured.numbers.values())
