"""Tiny targets whose tokens have three positions (M-RoPE): pictures are patches on a grid, frames come one by one."""

import transformers as t

from .family import Family
from .parts import (
    MOE,
    PATCH,
    QWEN_IDS,
    SIDE,
    TEXT,
    TEXT_WITHOUT_HEAD_DIM,
    VISION,
    VISION_END,
    VISION_START,
    VISUAL_IDS,
    flat_patches,
    square_patches,
)

MROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}
TEXT_MROPE = dict(**TEXT, rope_parameters=MROPE)
QWEN2_TEXT = dict(**TEXT_WITHOUT_HEAD_DIM, rope_parameters=MROPE)
GLM_TEXT = dict(**TEXT, rope_parameters={**MROPE, "partial_rotary_factor": 1.0})

TOWER = dict(depth=2, hidden_size=16, intermediate_size=24, num_heads=2, patch_size=PATCH, spatial_merge_size=2)
QWEN2_TOWER = dict(depth=2, embed_dim=16, hidden_size=32, num_heads=2, patch_size=PATCH, spatial_merge_size=2)
QWEN2_5_TOWER = dict(**TOWER, out_hidden_size=32, window_size=16, fullatt_block_indexes=[1])
QWEN3_5_TOWER = dict(**TOWER, out_hidden_size=32, num_position_embeddings=64)
QWEN3_TOWER = dict(**QWEN3_5_TOWER, deepstack_visual_indexes=[0, 1])
GLM_TOWER = dict(**TOWER, out_hidden_size=32, image_size=SIDE)
GLM_IDS = dict(
    **VISUAL_IDS,
    image_start_token_id=VISION_START,
    image_end_token_id=VISION_END,
    video_start_token_id=114,
    video_end_token_id=115,
)
GLM_MOE = dict(moe_intermediate_size=24, num_experts_per_tok=2, n_routed_experts=4, first_k_dense_replace=1)


def qwen2_vl():
    config = t.Qwen2VLConfig(text_config=QWEN2_TEXT, vision_config=QWEN2_TOWER, **QWEN_IDS)
    return t.Qwen2VLForConditionalGeneration(config)


def qwen2_5_vl():
    config = t.Qwen2_5_VLConfig(text_config=QWEN2_TEXT, vision_config=QWEN2_5_TOWER, **QWEN_IDS)
    return t.Qwen2_5_VLForConditionalGeneration(config)


def qwen3_vl():
    config = t.Qwen3VLConfig(text_config=TEXT_MROPE, vision_config=QWEN3_TOWER, **QWEN_IDS)
    return t.Qwen3VLForConditionalGeneration(config)


def qwen3_vl_moe():
    config = t.Qwen3VLMoeConfig(text_config={**TEXT_MROPE, **MOE}, vision_config=QWEN3_TOWER, **QWEN_IDS)
    return t.Qwen3VLMoeForConditionalGeneration(config)


OMNI_MARKS = {name: QWEN_IDS[name] for name in ("vision_start_token_id", "vision_end_token_id")}


def qwen2_5_omni():
    audio = dict(num_mel_bins=8, encoder_layers=1, encoder_attention_heads=2, encoder_ffn_dim=16, d_model=16)
    towers = dict(text_config=QWEN2_TEXT, vision_config=QWEN2_5_TOWER, audio_config=dict(**audio, output_dim=32))
    ids = dict(image_token_index=QWEN_IDS["image_token_id"], video_token_index=QWEN_IDS["video_token_id"])
    config = t.Qwen2_5OmniThinkerConfig(**towers, **ids, audio_token_index=115, **OMNI_MARKS)
    return t.Qwen2_5OmniThinkerForConditionalGeneration(config)


def glm4v():
    return t.Glm4vForConditionalGeneration(t.Glm4vConfig(text_config=GLM_TEXT, vision_config=GLM_TOWER, **GLM_IDS))


def glm4v_moe():
    config = t.Glm4vMoeConfig(text_config={**GLM_TEXT, **GLM_MOE}, vision_config=GLM_TOWER, **GLM_IDS)
    return t.Glm4vMoeForConditionalGeneration(config)


def glm46v():
    text, vision = dict(**GLM_TEXT, model_type="glm4v_text"), dict(**GLM_TOWER, model_type="glm4v_vision")
    return t.Glm46VForConditionalGeneration(t.Glm46VConfig(text_config=text, vision_config=vision, **GLM_IDS))


def glm_ocr():
    return t.GlmOcrForConditionalGeneration(t.GlmOcrConfig(text_config=GLM_TEXT, vision_config=GLM_TOWER, **GLM_IDS))


def ernie4_5_vl_moe():
    rope = {**MROPE, "mrope_section": [1, 1, 2]}
    experts = dict(moe_intermediate_size=[24, 24], moe_k=2, moe_num_experts=4, moe_num_shared_experts=1)
    text = dict(**TEXT_WITHOUT_HEAD_DIM, **experts, rope_parameters=rope, mlp_layer_types=["dense", "sparse"])
    config = t.Ernie4_5_VLMoeConfig(text_config=text, vision_config=TOWER, **GLM_IDS)
    return t.Ernie4_5_VLMoeForConditionalGeneration(config)


def paddleocr_vl():
    vision = dict(**VISION, spatial_merge_size=2)
    config = t.PaddleOCRVLConfig(text_config=TEXT_MROPE, vision_config=vision, **QWEN_IDS)
    return t.PaddleOCRVLForConditionalGeneration(config)


def of_grids(build, pixels=flat_patches, **fields):
    return Family(build, pixels, token_types="mm_token_type_ids", **fields)


FAMILIES = {
    "Qwen2-VL": of_grids(qwen2_vl),
    "Qwen2.5-VL": of_grids(qwen2_5_vl),
    "Qwen3-VL": of_grids(qwen3_vl, note="picture features enter several layers"),
    "Qwen3-VL MoE": of_grids(qwen3_vl_moe, note="the same, experts"),
    "Qwen2.5-Omni (thinker)": Family(qwen2_5_omni, flat_patches),
    "GLM-4.1V": of_grids(glm4v),
    "GLM-4.5V": of_grids(glm4v_moe, note="experts"),
    "GLM-4.6V": of_grids(glm46v),
    "GLM-OCR": of_grids(glm_ocr),
    "ERNIE 4.5 VL": of_grids(ernie4_5_vl_moe, lambda generator: flat_patches(generator, frames=1), note="experts"),
    "PaddleOCR-VL": of_grids(paddleocr_vl, square_patches),
}
