"""Tiny targets with plain decoders: every layer sees all tokens before it, a token has one position.

They differ in how pictures become embeddings.
"""

from functools import partial

import torch
import transformers as t

from tests.generation import tiny

from .family import Family
from .parts import (
    IMAGE_ID,
    IMAGE_INDEX,
    PATCH,
    SIDE,
    TEXT,
    TEXT_WITHOUT_HEAD_DIM,
    VISION,
    VISUAL_IDS,
    clip,
    flat_patches,
    row_of_squares,
    siglip,
    square_patches,
    squares,
    tiles,
    two_sizes,
)
from .parts import QWEN_IDS as KIMI_IDS

PINPOINTS = dict(image_grid_pinpoints=[[SIDE, 2 * SIDE], [2 * SIDE, SIDE]], vision_feature_layer=-1)
MISTRAL = dict(**TEXT, sliding_window=None)


def pixtral_tower():
    return t.PixtralVisionConfig(**VISION, head_dim=8)


def llava():
    text = t.LlamaConfig(**TEXT)
    config = t.LlavaConfig(text_config=text, vision_config=clip(), **IMAGE_ID, vision_feature_layer=-1)
    return t.LlavaForConditionalGeneration(config)


def vipllava():
    text = t.LlamaConfig(**TEXT)
    config = t.VipLlavaConfig(text_config=text, vision_config=clip(), **IMAGE_ID, vision_feature_layers=[-1, -2])
    return t.VipLlavaForConditionalGeneration(config)


def llava_next():
    text = t.LlamaConfig(**TEXT)
    return t.LlavaNextForConditionalGeneration(
        t.LlavaNextConfig(text_config=text, vision_config=clip(), **IMAGE_ID, **PINPOINTS)
    )


def llava_onevision():
    text = t.Qwen2Config(**TEXT)
    return t.LlavaOnevisionForConditionalGeneration(
        t.LlavaOnevisionConfig(text_config=text, vision_config=siglip(), **VISUAL_IDS, **PINPOINTS)
    )


def pixtral():
    towers = dict(text_config=t.MistralConfig(**MISTRAL), vision_config=pixtral_tower())
    config = t.LlavaConfig(**towers, **IMAGE_ID, vision_feature_layer=-1, vision_feature_select_strategy="full")
    return t.LlavaForConditionalGeneration(config)


def mistral3():
    towers = dict(text_config=t.MistralConfig(**MISTRAL), vision_config=pixtral_tower())
    return t.Mistral3ForConditionalGeneration(t.Mistral3Config(**towers, **IMAGE_INDEX))


def lighton_ocr():
    towers = dict(text_config=t.Qwen3Config(**TEXT), vision_config=pixtral_tower())
    return t.LightOnOcrForConditionalGeneration(t.LightOnOcrConfig(**towers, **IMAGE_ID))


def smolvlm():
    towers = dict(text_config=t.LlamaConfig(**TEXT), vision_config=VISION)
    return t.SmolVLMForConditionalGeneration(t.SmolVLMConfig(**towers, scale_factor=2, **IMAGE_ID))


def idefics3():
    towers = dict(text_config=t.LlamaConfig(**TEXT), vision_config=VISION)
    return t.Idefics3ForConditionalGeneration(t.Idefics3Config(**towers, scale_factor=2, **IMAGE_ID))


def idefics2():
    heads = dict(resampler_n_heads=2, resampler_head_dim=8, num_key_value_heads=1)
    perceiver = dict(hidden_size=32, resampler_n_latents=4, resampler_depth=1, **heads)
    towers = dict(text_config=t.MistralConfig(**MISTRAL), vision_config=VISION, perceiver_config=perceiver)
    return t.Idefics2ForConditionalGeneration(t.Idefics2Config(**towers, **IMAGE_ID))


def internvl():
    vision = t.InternVLVisionConfig(**{**VISION, "image_size": [SIDE, SIDE], "patch_size": [PATCH, PATCH]})
    towers = dict(text_config=t.Qwen2Config(**TEXT), vision_config=vision)
    return t.InternVLForConditionalGeneration(t.InternVLConfig(**towers, image_seq_length=4, **IMAGE_ID))


def ovis2():
    vision = dict(**VISION, vocab_size=32, num_visual_indicator_tokens=5, hidden_stride=2)
    sizes = dict(vocab_size=tiny.VOCAB, hidden_size=tiny.HIDDEN, visual_indicator_token_ids=[*range(110, 115)])
    config = t.Ovis2Config(text_config=t.Qwen2Config(**TEXT), vision_config=vision, **IMAGE_ID, **sizes)
    return t.Ovis2ForConditionalGeneration(config)


def got_ocr2():
    windows = dict(window_size=2, global_attn_indexes=[1], mlp_dim=24)
    vision = {**VISION, **windows, "output_channels": 8, "image_size": 4 * SIDE}
    del vision["intermediate_size"]
    towers = dict(text_config=t.Qwen2Config(**TEXT), vision_config=vision)
    return t.GotOcr2ForConditionalGeneration(t.GotOcr2Config(**towers, image_seq_length=4, **IMAGE_INDEX))


def aria():
    text = dict(**TEXT, moe_num_experts=4, moe_topk=2, moe_num_shared_experts=1)
    towers = dict(text_config=text, vision_config=dict(**VISION, model_type="idefics3_vision"))
    return t.AriaForConditionalGeneration(t.AriaConfig(**towers, projector_patch_to_query_dict={16: 4}, **IMAGE_INDEX))


def paligemma():
    text = t.GemmaConfig(**TEXT, tie_word_embeddings=False)
    towers = dict(text_config=text, vision_config=siglip(), projection_dim=32)
    return t.PaliGemmaForConditionalGeneration(t.PaliGemmaConfig(**towers, **IMAGE_ID, tie_word_embeddings=False))


def video_llama_3():
    vision = {name: value for name, value in VISION.items() if name != "image_size"}
    towers = dict(text_config=t.Qwen2Config(**TEXT), vision_config=vision)
    return t.VideoLlama3ForConditionalGeneration(t.VideoLlama3Config(**towers, **VISUAL_IDS))


def kimi_k25():
    """A decoder with latent attention and experts: its keys and values differ in size."""
    latent = dict(kv_lora_rank=8, q_lora_rank=8, qk_rope_head_dim=4, v_head_dim=8, qk_nope_head_dim=8)
    experts = dict(n_routed_experts=4, num_experts_per_tok=2, n_group=1, topk_group=1, first_k_dense_replace=1)
    text = {**TEXT_WITHOUT_HEAD_DIM, **latent, **experts, "moe_intermediate_size": 24, "num_key_value_heads": 4}
    vision = dict(patch_size=PATCH, pos_emb_height=4, pos_emb_width=4, pos_emb_time=2, num_attention_heads=2)
    vision |= dict(num_hidden_layers=2, hidden_size=16, intermediate_size=24)
    towers = dict(text_config=dict(**text, model_type="deepseek_v3"), vision_config=vision)
    return t.Kimi_K25ForConditionalGeneration(t.Kimi_K25Config(**towers, **KIMI_IDS, projection_hidden_size=16))


def phi4_multimodal():
    vision = dict(**VISION, crop_size=SIDE, **IMAGE_ID)
    audio = dict(hidden_size=16, intermediate_size=24, num_blocks=1, num_attention_heads=2, input_size=16)
    audio |= dict(nemo_conv_channels=8, ext_pw_out_channel=16, depthwise_separable_out_channel=16)
    rope = {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 1.0}
    towers = dict(vision_config=vision, audio_config=dict(**audio, time_reduction=4, audio_token_id=115))
    return t.Phi4MultimodalForCausalLM(t.Phi4MultimodalConfig(**TEXT_WITHOUT_HEAD_DIM, **towers, rope_parameters=rope))


def phi4_pixels(generator):
    """An overview and one crop of each picture."""
    return {
        "image_pixel_values": torch.randn(2, 2, 3, SIDE, SIDE, generator=generator),
        "image_sizes": torch.tensor([[SIDE, SIDE]] * 2),
        "image_attention_mask": torch.ones(2, 2, SIDE // PATCH, SIDE // PATCH),
    }


def video_llama_pixels(generator):
    return flat_patches(generator, frames=1) | {"image_merge_sizes": torch.tensor([2, 2])}


FAMILIES = {
    "LLaVA 1.5": Family(llava),
    "ViP-LLaVA": Family(vipllava),
    "LLaVA-NeXT": Family(llava_next, tiles),
    "LLaVA-OneVision": Family(llava_onevision, tiles),
    "Pixtral": Family(pixtral, two_sizes),
    "Mistral 3": Family(mistral3, two_sizes),
    "LightOnOCR": Family(lighton_ocr, two_sizes),
    "SmolVLM": Family(smolvlm, row_of_squares),
    "Idefics3": Family(idefics3, row_of_squares),
    "Idefics2": Family(idefics2, row_of_squares),
    "InternVL 3": Family(internvl),
    "Ovis2": Family(ovis2),
    "GOT-OCR 2": Family(got_ocr2, partial(squares, side=4 * SIDE)),
    "Aria": Family(aria, note="experts"),
    "PaliGemma": Family(paligemma, token_types="token_type_ids", note="prompt sees itself both ways"),
    "VideoLLaMA 3": Family(video_llama_3, video_llama_pixels),
    "Kimi K2.5": Family(kimi_k25, square_patches, note="latent attention, experts"),
    "Phi-4 multimodal": Family(phi4_multimodal, phi4_pixels, tokens=13),
}
