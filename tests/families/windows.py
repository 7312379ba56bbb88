"""Tiny targets whose layers differ: windows on some, rows shared between some, pictures that see themselves both ways.

Windows are shorter than the prompts.
"""

from unittest import mock

import torch
import transformers as t
from torch import nn
from transformers.modeling_outputs import BaseModelOutputWithPooling

from .family import Family
from .parts import IMAGE_ID, IMAGE_INDEX, PATCH, TEXT, TWO_KINDS, VISUAL_IDS, flat_patches, placed_patches, siglip

UNTIED = dict(tie_word_embeddings=False)  # tied, a tiny random Gemma repeats its last token for ever
LAYERS = {**TEXT, **TWO_KINDS}
GEMMA = {**LAYERS, **UNTIED}
BY_TOKEN_TYPE = dict(token_types="token_type_ids")
BY_MODALITY = dict(pixels=placed_patches, token_types="mm_token_type_ids")


def sliding_mistral3():
    """As early Mistral checkpoints: every layer has the window."""
    text = t.MistralConfig(**TEXT, sliding_window=12)
    config = t.LlavaConfig(text_config=text, vision_config=siglip(), **IMAGE_ID, vision_feature_layer=-1)
    config.vision_feature_select_strategy = "full"
    return t.LlavaForConditionalGeneration(config)


def aya_vision():
    towers = dict(text_config=t.Cohere2Config(**LAYERS), vision_config=siglip())
    return t.AyaVisionForConditionalGeneration(t.AyaVisionConfig(**towers, **IMAGE_INDEX))


def cohere2_vision():
    towers = dict(text_config=t.Cohere2Config(**LAYERS), vision_config=siglip())
    config = t.Cohere2VisionConfig(**towers, **IMAGE_ID, alignment_intermediate_size=32)
    return t.Cohere2VisionForConditionalGeneration(config)


def muse_glimmer():
    vision = dict(patch_size=PATCH, pos_emb_height=4, pos_emb_width=4, num_attention_heads=2, num_hidden_layers=2)
    vision |= dict(hidden_size=16, intermediate_size=24, patch_temporal=2, merge_size=2)
    sizes = dict(out_hidden_size=64, projector_hidden_size=24)
    return t.MuseGlimmerForConditionalGeneration(
        t.MuseGlimmerConfig(text_config=LAYERS, vision_config=vision, **VISUAL_IDS, **sizes)
    )


def paligemma2():
    text = t.Gemma2Config(**GEMMA, query_pre_attn_scalar=8)
    towers = dict(text_config=text, vision_config=siglip(), projection_dim=32)
    return t.PaliGemmaForConditionalGeneration(t.PaliGemmaConfig(**towers, **IMAGE_ID, **UNTIED))


def gemma3():
    towers = dict(text_config=t.Gemma3TextConfig(**GEMMA, query_pre_attn_scalar=8), vision_config=siglip())
    ids = dict(**IMAGE_ID, mm_tokens_per_image=4, boi_token_index=117, eoi_token_index=118)
    return t.Gemma3ForConditionalGeneration(t.Gemma3Config(**towers, **ids, **UNTIED))


class Tower(nn.Module):
    """In place of Gemma 3n's MobileNet, which only timm has."""

    def __init__(self):
        super().__init__()
        self.projection = nn.Conv2d(3, 16, 8, 8)

    def forward(self, pixel_values: torch.Tensor, **_) -> BaseModelOutputWithPooling:
        return BaseModelOutputWithPooling(last_hidden_state=self.projection(pixel_values))


def gemma3n():
    streams = dict(altup_num_inputs=2, laurel_rank=4, activation_sparsity_pattern=[0.0] * 4)
    by_layer = dict(hidden_size_per_layer_input=8, vocab_size_per_layer_input=110, intermediate_size=[48] * 4)
    text = {**GEMMA, **streams, **by_layer, "num_kv_shared_layers": 2}
    audio = dict(hidden_size=16, conf_num_attention_heads=2, conf_num_hidden_layers=1, input_feat_size=16)
    towers = dict(
        text_config=text,
        vision_config=dict(hidden_size=16, vocab_size=2, vocab_offset=118),
        audio_config=dict(**audio, sscp_conv_channel_size=[4, 4], vocab_size=2, vocab_offset=120),
    )
    config = t.Gemma3nConfig(**towers, **IMAGE_ID, audio_token_id=115, vision_soft_tokens_per_image=4, **UNTIED)
    build = t.AutoModel.from_config

    def build_or_stand_in(part, **kwargs):
        return Tower() if part is config.vision_config else build(part, **kwargs)

    with mock.patch.object(t.AutoModel, "from_config", build_or_stand_in):
        return t.Gemma3nForConditionalGeneration(config)


def gemma4(**fields):
    vision = dict(hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, head_dim=8)
    vision |= dict(num_key_value_heads=2, pooling_kernel_size=2, patch_size=PATCH, position_embedding_size=16)
    by_layer = dict(hidden_size_per_layer_input=8, vocab_size_per_layer_input=TEXT["vocab_size"])
    text = dict(**GEMMA, **by_layer, use_bidirectional_attention="vision", **fields)
    towers = dict(text_config=text, vision_config=vision, audio_config=None)
    return t.Gemma4ForConditionalGeneration(t.Gemma4Config(**towers, **VISUAL_IDS, audio_token_id=115, **UNTIED))


def gemma4_shared():
    return gemma4(num_kv_shared_layers=2)


def gemma4_moe():
    return gemma4(enable_moe_block=True, num_experts=4, top_k_experts=2, moe_intermediate_size=24)


def gemma4_unified():
    vision = dict(patch_size=2, pooling_kernel_size=2, mm_embed_dim=16, mm_posemb_size=16, output_proj_dims=16)
    towers = dict(text_config=dict(**GEMMA), vision_config=vision, audio_config=None)
    config = t.Gemma4UnifiedConfig(**towers, **VISUAL_IDS, audio_token_id=115, **UNTIED)
    return t.Gemma4UnifiedForConditionalGeneration(config)


FAMILIES = {
    "LLaVA on Mistral": Family(sliding_mistral3),
    "Aya Vision": Family(aya_vision),
    "Command A Vision (Cohere2)": Family(cohere2_vision),
    "Muse Glimmer": Family(muse_glimmer, flat_patches),
    "PaliGemma 2": Family(paligemma2, **BY_TOKEN_TYPE, note="prompt sees itself both ways"),
    "Gemma 3": Family(gemma3, **BY_TOKEN_TYPE, note="pictures see themselves both ways"),
    "Gemma 3n": Family(
        gemma3n, **BY_TOKEN_TYPE, note="shared rows, inputs per layer; its tower replaced, as it needs timm"
    ),
    "Gemma 4": Family(gemma4, **BY_MODALITY, note="inputs per layer, pictures see themselves both ways"),
    "Gemma 4 E2B/E4B": Family(gemma4_shared, **BY_MODALITY, note="the same, shared rows"),
    "Gemma 4 26B-A4B": Family(gemma4_moe, **BY_MODALITY, note="the same, experts"),
    "Gemma 4 unified": Family(gemma4_unified, **BY_MODALITY, note="pictures without a tower"),
}
