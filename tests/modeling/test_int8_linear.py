"""Rounded weights: as near to the full ones as 8 bits are, in every dtype, for few rows and for many."""

import pytest
import torch
from torch import nn

from hf_mmspec.generation.cost_cache import fingerprints
from hf_mmspec.modeling import FAMILIES, EagleDrafter, ViSpecDrafter
from hf_mmspec.modeling.int8_linear import Int8Linear, has_int8_weights, round_linear_layers
from tests.generation import tiny


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [(1,), (1, 1), (2, 3), (17,), (4, 40)])
@pytest.mark.parametrize("shape", [(64, 96), (576, 40), (33, 7)])
@pytest.mark.parametrize("bias", [True, False])
def test_the_product_is_that_of_the_rounded_weights(dtype, rows, shape, bias):
    torch.manual_seed(0)
    full = nn.Linear(*shape, bias=bias).to(dtype)
    rounded, x = Int8Linear(full), torch.randn(*rows, shape[0], dtype=dtype)
    weight = rounded.weight.float() * rounded.scale.float()[:, None]
    wanted = nn.functional.linear(x.float(), weight, None if full.bias is None else full.bias.float())
    given = rounded(x)
    assert given.shape == wanted.shape and given.dtype == dtype
    assert torch.allclose(given.float(), wanted, atol=2e-5 if dtype == torch.float32 else 0.06, rtol=2e-2)
    steps = (full.weight.float() - weight).abs() / rounded.scale.float()[:, None]
    assert steps.max() <= 0.5 + (0.01 if dtype == torch.float32 else 0.7)  # a bfloat16 scale is itself rounded


def test_zero_weights_stay_zero():
    empty = nn.Linear(8, 8)
    nn.init.zeros_(empty.weight)
    assert torch.equal(Int8Linear(empty)(torch.ones(1, 8)), empty.bias[None])


def test_only_linear_layers_are_replaced_wherever_they_are():
    module = nn.Sequential(nn.Embedding(3, 4), nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)))
    assert not has_int8_weights(module)
    round_linear_layers(module)
    assert has_int8_weights(module)
    assert [type(each) for each in (module[0], *module[1])] == [nn.Embedding, Int8Linear, nn.LayerNorm]


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_rounded_drafter_gives_the_targets_own_tokens(family):
    target, inputs = tiny.llava(), tiny.llava_prompt()
    taps = {"feature_layers": [0, 1]} if family == "eagle3" else {}
    drafter = FAMILIES[family][1].from_target(target, **taps)
    costs = fingerprints(drafter)
    assert drafter.int8() is drafter and has_int8_weights(drafter)
    assert fingerprints(drafter) != costs
    options = {"do_sample": False, "max_new_tokens": 12}
    for mode in ("tree", "chain"):
        drafted = target.generate(**inputs, assistant_model=drafter, draft_depth=3, draft_mode=mode, **options)
        assert torch.equal(drafted, target.generate(**inputs, **options))


def test_a_rounded_drafter_moves_to_another_dtype():
    model, inputs = tiny.llava().bfloat16(), tiny.llava_prompt(1)
    inputs["pixel_values"] = inputs["pixel_values"].bfloat16()
    drafter = ViSpecDrafter.from_target(tiny.llava()).int8().to(torch.bfloat16)
    assert {b.dtype for name, b in drafter.named_buffers() if name.endswith(".scale")} == {torch.bfloat16}
    assert model.generate(**inputs, max_new_tokens=4, assistant_model=drafter, draft_depth=2).shape[0] == 1


def test_what_is_rounded_is_not_saved(tmp_path):
    drafter = EagleDrafter.from_target(tiny.llava()).int8()
    with pytest.raises(ValueError, match="rounded by int8"):
        drafter.save_pretrained(tmp_path / "x")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_weight_is_within_half_a_step(dtype):
    """Of the scale that is multiplied, not of a finer one that it was rounded from."""
    torch.manual_seed(0)
    full = nn.Linear(64, 50, bias=False).to(dtype)
    with torch.no_grad():
        full.weight[3] = 0
    rounded = Int8Linear(full)
    back = rounded.weight.double() * rounded.scale.double()[:, None]
    error = (back - full.weight.double()).abs()
    steps = torch.where(rounded.weight.abs() == 127, 0.5 + 127 * torch.finfo(dtype).eps, 0.5 + 1e-4)  # clamped
    assert (error <= steps * rounded.scale.double()[:, None]).all()
