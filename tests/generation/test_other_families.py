"""The target adapter knows no family, so others run too: the same tokens with scripted drafters, text and images."""

import pytest
import torch
from transformers import (
    CONFIG_MAPPING,
    AutoModelForCausalLM,
    CLIPVisionConfig,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3TextConfig,
    GemmaConfig,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLVisionConfig,
    LlamaConfig,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    Qwen2Config,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    SiglipVisionConfig,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
)

from hf_mmspec.modeling import ViSpecDrafter

from . import tiny
from .doubles import OracleDrafter, RandomDrafter
from .test_lossless_greedy import SHAPES, assert_same, new_tokens, run

TEXT = dict(
    vocab_size=tiny.VOCAB,
    hidden_size=tiny.HIDDEN,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=tiny.EOS,
)
VISION = dict(
    hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=16, patch_size=4
)
IDS = dict(image_token_id=tiny.IMAGE_TOKEN)
QWEN_IDS = dict(**IDS, video_token_id=118, vision_start_token_id=117, vision_end_token_id=116)
MROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}
PINPOINTS = dict(image_grid_pinpoints=[[16, 32], [32, 16]], vision_feature_layer=-1)


def paligemma():
    vision = SiglipVisionConfig(**VISION)
    config = PaliGemmaConfig(text_config=GemmaConfig(**TEXT), vision_config=vision, projection_dim=32, **IDS)
    return PaliGemmaForConditionalGeneration(config)


def gemma3():
    layers = ["sliding_attention", "full_attention"] * 2
    text = {**TEXT, "num_hidden_layers": 4, "layer_types": layers, "sliding_window": 12, "query_pre_attn_scalar": 8}
    vision = SiglipVisionConfig(**VISION)
    ids = dict(**IDS, mm_tokens_per_image=4, boi_token_index=117, eoi_token_index=118)
    return Gemma3ForConditionalGeneration(
        Gemma3Config(text_config=Gemma3TextConfig(**text), vision_config=vision, **ids)
    )


def llava_next():
    vision = CLIPVisionConfig(**VISION, projection_dim=16)
    config = LlavaNextConfig(text_config=LlamaConfig(**TEXT), vision_config=vision, **IDS, **PINPOINTS)
    return LlavaNextForConditionalGeneration(config)


def llava_onevision():
    vision = SiglipVisionConfig(**VISION)
    ids = dict(**IDS, video_token_id=118)
    config = LlavaOnevisionConfig(text_config=Qwen2Config(**TEXT), vision_config=vision, **ids, **PINPOINTS)
    return LlavaOnevisionForConditionalGeneration(config)


def smolvlm():
    config = SmolVLMConfig(text_config=LlamaConfig(**TEXT), vision_config=dict(VISION), scale_factor=2, **IDS)
    return SmolVLMForConditionalGeneration(config)


def internvl():
    vision = InternVLVisionConfig(**{**VISION, "image_size": [16, 16], "patch_size": [4, 4]})
    config = InternVLConfig(text_config=Qwen2Config(**TEXT), vision_config=vision, image_seq_length=4, **IDS)
    return InternVLForConditionalGeneration(config)


def qwen2_vl():
    text = {name: value for name, value in TEXT.items() if name != "head_dim"} | {"rope_parameters": MROPE}
    vision = dict(depth=2, embed_dim=16, hidden_size=32, num_heads=2, patch_size=4, spatial_merge_size=2)
    return Qwen2VLForConditionalGeneration(Qwen2VLConfig(text_config=text, vision_config=vision, **QWEN_IDS))


def qwen3_vl():
    vision = dict(
        depth=2,
        hidden_size=16,
        intermediate_size=24,
        num_heads=2,
        out_hidden_size=32,
        patch_size=4,
        spatial_merge_size=2,
        deepstack_visual_indexes=[0, 1],
        num_position_embeddings=64,
    )
    config = Qwen3VLConfig(text_config={**TEXT, "rope_parameters": MROPE}, vision_config=vision, **QWEN_IDS)
    return Qwen3VLForConditionalGeneration(config)


def text_model(model_type, **fields):
    config = CONFIG_MAPPING[model_type](**{**TEXT, "num_hidden_layers": 4, **fields})
    return AutoModelForCausalLM.from_config(config, attn_implementation="eager")


# Decoders that differ from Llama in what the adapter touches: other names of layers, sinks, windows on some layers,
# heads of several sizes.
TEXT_MODELS = {
    "gpt2": {},
    "gpt_oss": dict(sliding_window=6, num_local_experts=4, num_experts_per_tok=2),
    "qwen3": dict(use_sliding_window=True, sliding_window=6, max_window_layers=2),
    "cohere2": dict(sliding_window=6),
    "gemma4_text": {},
}


MODELS = (paligemma, gemma3, llava_next, llava_onevision, smolvlm, internvl, qwen2_vl, qwen3_vl)
WITH_TOKEN_TYPES = (paligemma, gemma3)


def image_inputs(build, model):
    """A prompt with images; two of them where the family takes any size."""
    if build in (qwen2_vl, qwen3_vl):
        return tiny.qwen_prompt(1, images=2)
    generator = torch.Generator().manual_seed(0)
    pixels = {"pixel_values": torch.randn(1, 3, 16, 16, generator=generator)}
    if build is smolvlm:
        pixels["pixel_values"] = pixels["pixel_values"][None]
    if build in (llava_next, llava_onevision):
        pixels = {
            "pixel_values": torch.randn(2, 3, 3, 16, 16, generator=generator),
            "image_sizes": torch.tensor([[16, 32], [16, 28]]),
        }
    with torch.no_grad():
        features = model.get_image_features(**pixels).pooler_output
    ids = [1, 5, 6, 7]
    for feature in features:
        ids += [tiny.IMAGE_TOKEN] * feature.shape[0] + [8, 9]
    return {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids), dtype=torch.long), **pixels}


@pytest.mark.parametrize("build", MODELS, ids=lambda build: build.__name__)
def test_same_as_generate(build):
    torch.manual_seed(0)
    model = tiny.finish(build())
    for inputs in (tiny.llava_prompt(0, images=0, length=8), image_inputs(build, model)):
        if build in WITH_TOKEN_TYPES:
            inputs["token_type_ids"] = (inputs["input_ids"] == tiny.IMAGE_TOKEN).long()
        expected = run(model, inputs, max_new_tokens=30)
        for drafter in (RandomDrafter(model), OracleDrafter(model, new_tokens(expected[0], inputs))):
            for shape in ("narrow", "chain"):
                actual = run(model, inputs, max_new_tokens=30, assistant_model=drafter, **SHAPES[shape])
                assert_same(expected, actual, (build.__name__, shape))


@pytest.mark.parametrize("model_type", TEXT_MODELS)
def test_text_decoders(model_type):
    torch.manual_seed(0)
    model, inputs = tiny.finish(text_model(model_type, **TEXT_MODELS[model_type])), tiny.llava_prompt(0, images=0)
    expected = run(model, inputs, eos_token_id=1)
    oracle = OracleDrafter(model, new_tokens(expected[0], inputs))
    for drafter in (oracle, ViSpecDrafter.from_target(model, initializer_range=0.3)):
        assert_same(expected, run(model, inputs, eos_token_id=1, assistant_model=drafter, **SHAPES["narrow"]), drafter)
