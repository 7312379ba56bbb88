"""Targets as users have them: quantized, with LoRA, offloaded, in half precision; always the target's output."""

import threading

import pytest
import torch
from transformers import BitsAndBytesConfig

from hf_mmspec.evaluation.identity import find_difference
from hf_mmspec.generation.decoder_masks import masks_for_decoder
from hf_mmspec.modeling import ViSpecDrafter
from tests.families.windows import FAMILIES as WINDOWED

from . import tiny
from .doubles import OracleDrafter, RandomDrafter
from .test_lossless_greedy import SHAPES, assert_same, new_tokens, run


@pytest.mark.parametrize("bits", ["4bit", "8bit"])
def test_quantized_target_and_a_float_drafter(tmp_path, bits):
    """vllm #9534: a quantized target with a drafter of another dtype gives what the quantized target gives alone.

    int8 without outlier columns: bitsandbytes picks those over all rows of a forward, so with them n rows are not
    computed as n times one row, and no way of checking several tokens at once can be exact.
    """
    pytest.importorskip("bitsandbytes")
    # Large enough for the packed kernels' blocks.
    tiny.llava(hidden_size=128, intermediate_size=256).save_pretrained(tmp_path)
    config = BitsAndBytesConfig(
        load_in_4bit=bits == "4bit",
        load_in_8bit=bits == "8bit",
        llm_int8_threshold=0.0,
        llm_int8_skip_modules=["model.vision_tower", "model.multi_modal_projector", "lm_head"],
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.float32,
    )
    model = tiny.LlavaForConditionalGeneration.from_pretrained(
        tmp_path, quantization_config=config, dtype=torch.float32
    )
    assert model.get_decoder().layers[0].mlp.up_proj.weight.dtype in (torch.uint8, torch.int8)
    for images in (0, 1):
        inputs = tiny.llava_prompt(images, images)
        expected = run(model, inputs)
        for drafter in (
            ViSpecDrafter.from_target(model).to(torch.bfloat16),
            OracleDrafter(model, new_tokens(expected[0], inputs)),
        ):
            output, stream = run(model, inputs, assistant_model=drafter, **SHAPES["narrow"])
            assert output.sequences.tolist() == expected[0].sequences.tolist()
            assert stream == expected[1]


def test_lora_target_adapter_on_off_and_merged():
    """vllm #26679: verification uses the adapter that is active."""
    peft = pytest.importorskip("peft")
    model = tiny.llava()
    config = peft.LoraConfig(r=4, target_modules=r".*language_model.*(q|v)_proj", init_lora_weights=False)
    lora, inputs = peft.get_peft_model(model, config), tiny.llava_prompt(2)
    drafter = RandomDrafter(model)

    def same(target):
        expected = run(target, inputs)
        assert_same(expected, run(target, inputs, assistant_model=drafter, **SHAPES["wide"]), "lora")
        return new_tokens(expected[0], inputs)

    adapted = same(lora)
    with lora.disable_adapter():
        plain = same(lora)
    assert adapted != plain
    assert same(lora.merge_and_unload()) == adapted


def test_offloaded_target(tmp_path):
    """Weights that are on "meta" until their module runs, as `device_map="auto"` leaves what does not fit."""
    accelerate = pytest.importorskip("accelerate")
    model, inputs = tiny.llava(), tiny.llava_prompt(1)
    expected = run(model, inputs, eos_token_id=1)
    accelerate.disk_offload(model, tmp_path, execution_device="cpu")
    assert model.device.type == "meta"
    for budget in (SHAPES["narrow"], {}):
        drafter = ViSpecDrafter.from_target(model, initializer_range=0.3)
        assert_same(expected, run(model, inputs, eos_token_id=1, assistant_model=drafter, **budget), "offloaded")


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_decoder_in_another_dtype_than_the_vision_tower(attention):
    """Masks follow the decoder; the first parameter of the whole model may be of another kind."""
    model, inputs = tiny.llava(attention).to(torch.bfloat16), tiny.llava_prompt(1)
    model.model.vision_tower.float()
    model.model.multi_modal_projector.float()
    plain, _ = run(model, inputs, eos_token_id=1)
    output, _ = run(model, inputs, eos_token_id=1, assistant_model=RandomDrafter(model), **SHAPES["narrow"])
    expected, actual = new_tokens(plain, inputs), new_tokens(output, inputs)
    difference = find_difference(model, inputs, expected, actual)
    assert len(actual) == 22 and (difference is None or difference.is_near_tie), difference


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_bfloat16_differs_only_at_ties(family):
    """In bf16 another number of rows rounds differently: the first difference, if any, is a tie of the top logits."""
    model = tiny.FAMILIES[family]().to(torch.bfloat16)
    for seed in range(6):
        inputs = tiny.PROMPTS[family](seed, images=seed % 3)
        if "pixel_values" in inputs:
            inputs["pixel_values"] = inputs["pixel_values"].to(torch.bfloat16)
        plain, _ = run(model, inputs)
        ours, _ = run(model, inputs, assistant_model=RandomDrafter(model), **SHAPES["wide"])
        a, b = new_tokens(plain, inputs), new_tokens(ours, inputs)
        place = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), None)
        if place is not None:
            logits = plain.logits[place][0]
            spread = 4 * torch.finfo(torch.bfloat16).eps * logits.abs().max()
            assert logits.max() - logits[b[place]] <= spread


def test_masks_for_a_decoder_are_those_of_the_thread_that_asks():
    """Another thread may run the same PaliGemma 2 in the meantime."""
    model, seen = WINDOWED["PaliGemma 2"].model(), {}
    decoder = model.get_decoder()

    def note(name):
        with torch.no_grad():
            decoder(input_ids=torch.tensor([[1, 5]]))

    def remember(module, args, kwargs):
        seen[threading.current_thread().name] = kwargs.get("attention_mask")

    masks = {kind: torch.zeros(1, 1, 2, 2) for kind in ("full_attention", "sliding_attention")}
    with masks_for_decoder(decoder, masks, model.config):
        decoder.register_forward_pre_hook(remember, with_kwargs=True)
        other = threading.Thread(target=note, args=("other",), name="other")
        other.start()
        other.join()
        note("this")
    assert seen == {"other": None, threading.current_thread().name: masks}
