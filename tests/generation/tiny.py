"""Tiny random targets of real transformers classes, and prompts for them with any number of images."""

import torch
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    MistralConfig,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)

VOCAB, HIDDEN, IMAGE_TOKEN, EOS = 120, 32, 119, 2
_TEXT = dict(
    vocab_size=VOCAB,
    hidden_size=HIDDEN,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=EOS,
    max_position_embeddings=4096,
)
_VISION = dict(
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=2,
    image_size=16,
    patch_size=4,
    projection_dim=16,
)
LLAVA_IMAGE_TOKENS = 16


def finish(model):
    """Random weights that give varied text: larger than the default initialisation, and no favourite token."""
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.mul_(8)
    # The placeholder is never a sensible answer; a tiny random model would not know.
    model.generation_config.suppress_tokens = [IMAGE_TOKEN]
    model.generation_config.pad_token_id = 0
    return model.eval()


def llava(attention="sdpa", seed=0, text_config=None, **text):
    """LLaVA 1.5 style, 16 visual tokens per image; `text` overrides fields of the language model's config."""
    torch.manual_seed(seed)
    config = LlavaConfig(
        text_config=text_config or LlamaConfig(**{**_TEXT, **text}),
        vision_config=CLIPVisionConfig(**_VISION),
        image_token_id=IMAGE_TOKEN,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
    )
    config._attn_implementation = attention
    return finish(LlavaForConditionalGeneration._from_config(config, attn_implementation=attention))


def sliding_llava(attention="sdpa", seed=0, window=16):
    """LLaVA on Mistral with a sliding window."""
    return llava(attention, seed, text_config=MistralConfig(**_TEXT, sliding_window=window))


def qwen(attention="sdpa", seed=0, **text):
    """Qwen2.5-VL with true M-RoPE; images of any even grid."""
    torch.manual_seed(seed)
    text_config = dict(
        **{**_TEXT, **text},
        rope_parameters={"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]},
    )
    vision = dict(
        depth=2,
        hidden_size=16,
        intermediate_size=24,
        num_heads=2,
        out_hidden_size=text.get("hidden_size", HIDDEN),
        patch_size=4,
        spatial_merge_size=2,
        window_size=16,
        fullatt_block_indexes=[1],
    )
    config = Qwen2_5_VLConfig(
        text_config=text_config,
        vision_config=vision,
        image_token_id=IMAGE_TOKEN,
        video_token_id=118,
        vision_start_token_id=117,
        vision_end_token_id=116,
        tie_word_embeddings=False,
    )
    return finish(Qwen2_5_VLForConditionalGeneration._from_config(config, attn_implementation=attention))


def llama(attention="sdpa", seed=0):
    """A plain causal language model."""
    torch.manual_seed(seed)
    return finish(LlamaForCausalLM._from_config(LlamaConfig(**_TEXT), attn_implementation=attention))


FAMILIES = {"llava": llava, "qwen": qwen}


def _text(generator, n):
    return torch.randint(3, 110, (n,), generator=generator).tolist()


def llava_prompt(seed=0, images=1, length=6):
    """Inputs as a processor gives them: text, image, text, ... with `images` images (adjacent ones for odd seeds)."""
    generator = torch.Generator().manual_seed(seed)
    ids = [1, *_text(generator, length)]
    for index in range(images):
        ids += [IMAGE_TOKEN] * LLAVA_IMAGE_TOKENS
        if index == images - 1 or seed % 2 == 0:
            ids += _text(generator, length // 2 + index)
    ids += _text(generator, 2)
    inputs = {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids), dtype=torch.long)}
    if images:
        inputs["pixel_values"] = torch.randn(images, 3, 16, 16, generator=generator)
    return inputs


def qwen_prompt(seed=0, images=1, length=6):
    """Like `llava_prompt`, for Qwen2.5-VL; image sizes differ within a prompt."""
    generator = torch.Generator().manual_seed(seed)
    ids, grids, patches = [1, *_text(generator, length)], [], []
    for index in range(images):
        height, width = 4, 2 + 2 * ((seed + index) % 3)
        grids.append([1, height, width])
        patches.append(torch.randn(height * width, 3 * 2 * 4 * 4, generator=generator))
        ids += [117, *[IMAGE_TOKEN] * (height * width // 4), 116, *_text(generator, length // 2 + index)]
    ids = torch.tensor([[*ids, *_text(generator, 2)]])
    inputs = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "mm_token_type_ids": (ids == IMAGE_TOKEN).long(),
    }
    if images:
        inputs |= {"pixel_values": torch.cat(patches), "image_grid_thw": torch.tensor(grids)}
    return inputs


PROMPTS = {"llava": llava_prompt, "qwen": qwen_prompt}
