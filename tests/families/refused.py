"""Tiny targets that drafters do not work with: each must say so by name before any work."""

import transformers as t

from .family import Family
from .mrope import QWEN3_5_TOWER, TEXT_MROPE
from .parts import IMAGE_ID, IMAGE_INDEX, MOE, PATCH, QWEN_IDS, SIDE, TEXT, TEXT_WITHOUT_HEAD_DIM, VISION

LINEAR = dict(linear_key_head_dim=8, linear_value_head_dim=8, linear_num_key_heads=2, linear_num_value_heads=2)
QWEN3_5_TEXT = dict(**TEXT_MROPE, **LINEAR, layer_types=["linear_attention", "full_attention"])


def qwen3_5():
    config = t.Qwen3_5Config(text_config=QWEN3_5_TEXT, vision_config=QWEN3_5_TOWER, **QWEN_IDS)
    return t.Qwen3_5ForConditionalGeneration(config)


def qwen3_5_moe():
    text = dict(**QWEN3_5_TEXT, **MOE, shared_expert_intermediate_size=24)
    config = t.Qwen3_5MoeConfig(text_config=text, vision_config=QWEN3_5_TOWER, **QWEN_IDS)
    return t.Qwen3_5MoeForConditionalGeneration(config)


def minicpmv4_6():
    text, vision = dict(**QWEN3_5_TEXT, model_type="qwen3_5_text"), dict(**VISION, insert_layer_id=0)
    config = t.MiniCPMV4_6Config(text_config=text, vision_config=vision, insert_layer_id=0, **IMAGE_ID)
    return t.MiniCPMV4_6ForConditionalGeneration(config)


def lfm2_vl():
    text = dict(**TEXT_WITHOUT_HEAD_DIM, model_type="lfm2", layer_types=["conv", "full_attention"])
    vision = {name: value for name, value in VISION.items() if name != "image_size"}
    towers = dict(text_config=text, vision_config=dict(**vision, model_type="siglip2_vision_model", num_patches=16))
    return t.Lfm2VlForConditionalGeneration(t.Lfm2VlConfig(**towers, projector_hidden_size=16, **IMAGE_ID))


def llama4():
    text = dict(**TEXT, intermediate_size_mlp=48, num_local_experts=2, attention_chunk_size=8)
    sizes = dict(vision_output_dim=16, projector_input_dim=16, projector_output_dim=16)
    vision = {**VISION, **sizes, "intermediate_size": 64}
    config = t.Llama4Config(text_config=text, vision_config=vision, **IMAGE_INDEX, boi_token_index=117)
    return t.Llama4ForConditionalGeneration(config)


def mllama():
    rope = {"rope_type": "default", "rope_theta": 1e4}
    text = dict(**TEXT_WITHOUT_HEAD_DIM, cross_attention_layers=[1], rope_parameters=rope)
    vision = dict(hidden_size=16, num_hidden_layers=2, num_global_layers=1, attention_heads=2, intermediate_size=24)
    vision |= dict(image_size=SIDE, patch_size=PATCH, max_num_tiles=2, intermediate_layers_indices=[0, 1])
    vision |= dict(vision_output_dim=48, supported_aspect_ratios=[[1, 1], [1, 2]])
    return t.MllamaForConditionalGeneration(t.MllamaConfig(text_config=text, vision_config=vision, **IMAGE_INDEX))


def florence2():
    text = dict(
        vocab_size=TEXT["vocab_size"], d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2
    )
    text |= dict(decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, model_type="bart")
    vision = dict(embed_dim=[8] * 4, num_heads=[2] * 4, num_groups=[2] * 4, depths=[1] * 4, window_size=2)
    vision |= dict(projection_dim=32, max_temporal_embeddings=4, max_position_embeddings=4)
    return t.Florence2ForConditionalGeneration(t.Florence2Config(text_config=text, vision_config=vision, **IMAGE_ID))


FAMILIES = {
    "Qwen3.5": Family(qwen3_5, None),
    "Qwen3.5 MoE": Family(qwen3_5_moe, None),
    "MiniCPM-V 4.6": Family(minicpmv4_6, None),
    "LFM2-VL": Family(lfm2_vl, None),
    "Llama 4": Family(llama4, None),
    "Llama 3.2 Vision (Mllama)": Family(mllama, None),
    "Florence-2": Family(florence2, None),
}
