"""Every drafter on targets with packed weights: the tokens of the same packed target without a drafter."""

from itertools import product

import pytest
import torch
from transformers import AutoModelForImageTextToText

from hf_mmspec.evaluation.identity import find_difference
from hf_mmspec.evaluation.machine import machine_facts
from hf_mmspec.modeling import FAMILIES, ViSpecDrafter
from tests.slow_parameters import others_slow

from . import packed, tiny
from .doubles import OracleDrafter
from .test_every_family import DRAFTERS, build
from .test_lossless_greedy import SHAPES, new_tokens, run


def answer(model, inputs):
    """22 new tokens without a drafter."""
    return new_tokens(run(model, inputs, eos_token_id=1)[0], inputs)


@pytest.fixture(scope="module")
def targets(tmp_path_factory):
    """Packed targets by family and form, loaded once; each with prompts and its own answers to them."""
    loaded, folders = {}, {}

    def get(family, form):
        if family not in folders:
            folders[family] = tmp_path_factory.mktemp(family)
            packed.save_full(family, folders[family])
        if (family, form) not in loaded:
            model = packed.load(folders[family], form)
            prompts = [tiny.PROMPTS[family](seed, images=seed) for seed in range(2)]
            loaded[family, form] = model, [(inputs, answer(model, inputs)) for inputs in prompts]
        return loaded[family, form]

    return get


def check(model, inputs, expected, **arguments):
    """The same tokens, or a tie in what packed weights can tell apart; whether they are the same."""
    output, _ = run(model, inputs, eos_token_id=1, **arguments)
    actual = new_tokens(output, inputs)
    difference = find_difference(model, inputs, expected, actual)
    assert difference is None or difference.is_near_tie, difference
    return difference is None, output.speculation


@pytest.mark.parametrize("form", packed.FORMS)
@pytest.mark.parametrize("family", packed.SIZES)
def test_a_drafter_that_is_always_right(targets, family, form):
    """Long accepted paths, in which a row that changed another one would show."""
    model, answers = targets(family, form)
    assert model.is_quantized
    for inputs, expected in answers:
        drafter = OracleDrafter(model, expected)
        _, speculation = check(model, inputs, expected, assistant_model=drafter, **SHAPES["narrow"])
        assert speculation.acceptance_length > 2


@pytest.mark.parametrize(
    "family, name, form",
    others_slow(
        [*product(["llava"], DRAFTERS, ["nf4", "int8"]), *product(["qwen"], FAMILIES, ["nf4", "int8"])],
        [
            *product(["llava"], (*FAMILIES, "eagle3_narrow", "vispec_reusing"), ["nf4"]),
            *product(["llava"], ("vispec", "eagle3"), ["int8"]),
            ("qwen", "vispec", "nf4"),
            ("qwen", "flash", "int8"),
        ],
    ),
)
def test_every_drafter(targets, family, name, form):
    """In the target's dtype and in another one; of a reduced vocabulary too."""
    model, answers = targets(family, form)
    for half, (inputs, expected) in zip((False, True), answers, strict=True):
        drafter = build(name, model, torch.tensor(expected).unique() if half else None)
        drafter = drafter.to(torch.bfloat16) if half else drafter
        check(model, inputs, expected, assistant_model=drafter, **SHAPES["wide"])


@pytest.mark.parametrize("form", ["nf4", "int8"])
def test_kernels_take_rows_one_by_one(targets, form):
    """A packed layer answers a row with the same bits alone and among others: only what lies between packed layers
    depends on how many rows there are."""
    if form == "nf4" and not machine_facts(torch.float32)["avx512_bf16"]:
        pytest.skip("without AVX512-BF16 bitsandbytes unpacks nf4 weights and multiplies as torch does")
    model, _ = targets("llava", form)
    layer = model.get_decoder().layers[0].mlp.up_proj
    rows = torch.randn(9, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(layer(rows), torch.cat([layer(row[None]) for row in rows]))


def test_outlier_columns_are_chosen_over_all_rows(targets):
    """Why `--quantize int8` has none: a row with a large number changes how the others are computed."""
    model, _ = targets("llava", "int8 with outliers")
    layer = model.get_decoder().layers[0].mlp.up_proj
    rows = torch.randn(9, 64, generator=torch.Generator().manual_seed(0)) * 0.1
    rows[4, 7] = 3.0
    with torch.no_grad():
        together, alone = layer(rows), torch.cat([layer(row[None]) for row in rows])
    assert not torch.equal(together[0], alone[0])


@pytest.mark.parametrize("form", ["nf4", "int8", "torchao int8"])
def test_saved_and_loaded_again(targets, tmp_path, form):
    packed.save_full("llava", tmp_path / "full")
    packed.load(tmp_path / "full", form).save_pretrained(tmp_path / "packed")
    again, inputs = AutoModelForImageTextToText.from_pretrained(tmp_path / "packed").eval(), tiny.llava_prompt(1)
    drafter, expected = ViSpecDrafter.from_target(again), targets("llava", form)[1][1][1]
    assert drafter.dtype == torch.float32
    check(again, inputs, expected, assistant_model=drafter, **SHAPES["narrow"])


@pytest.mark.parametrize("form", ["nf4", "int8"])
def test_lora_on_a_packed_target(targets, form):
    peft = pytest.importorskip("peft")
    model, answers = targets("llava", form)
    inputs, expected = answers[1]
    options = {"r": 4, "target_modules": r".*language_model.*(q|v)_proj", "init_lora_weights": False}
    lora = peft.get_peft_model(model, peft.LoraConfig(**options)).eval()
    drafter = ViSpecDrafter.from_target(lora)
    try:
        adapted = answer(lora, inputs)
        check(lora, inputs, adapted, assistant_model=drafter, **SHAPES["wide"])
        with lora.disable_adapter():
            check(lora, inputs, expected, assistant_model=drafter, **SHAPES["wide"])
        assert adapted != expected
    finally:
        lora.unload()
