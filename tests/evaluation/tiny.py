"""A tiny random LLaVA that reads the embedded default's images, with a tokenizer of single bytes, and a drafter."""

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
    SiglipVisionConfig,
)

from hf_mmspec.demo.model.processor import IMAGE_TOKEN, build_processor
from hf_mmspec.modeling import ViSpecDrafter

SPECIAL = ("<|im_start|>", "<|im_end|>", "<|endoftext|>", IMAGE_TOKEN)


def tiny_processor():
    """The embedded default's processor around a tokenizer with one token per byte."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*SPECIAL, *alphabet])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(list(SPECIAL))
    return build_processor(
        PreTrainedTokenizerFast(
            tokenizer_object=backend,
            bos_token=SPECIAL[0],
            eos_token=SPECIAL[1],
            unk_token=SPECIAL[2],
            pad_token=SPECIAL[1],
            extra_special_tokens={"image_token": IMAGE_TOKEN},
        )
    )


def tiny_target(seed: int = 0, text_config=None, **text_fields):
    """144 visual tokens per image, two text layers; its favourite token changes from step to step."""
    torch.manual_seed(seed)
    fields = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4)
    text = text_config or LlamaConfig(
        vocab_size=len(SPECIAL) + 256,
        num_key_value_heads=2,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
        **{**fields, **text_fields},
    )
    vision = SiglipVisionConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2, image_size=192, patch_size=16
    )
    config = LlavaConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=3,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )
    target = LlavaForConditionalGeneration(config).eval()
    for parameter in target.parameters():
        if parameter.dim() > 1:
            parameter.data.mul_(8)
    target.generation_config.suppress_tokens = [0, 2, 3]
    target.generation_config.eos_token_id = 1
    target.generation_config.pad_token_id = 1
    return target


def tiny_drafter(target, **fields):
    """An untrained ViSpec drafter, drafting a small tree always."""
    drafter = ViSpecDrafter.from_target(target, **fields).eval()
    for name, value in {"draft_depth": 2, "draft_top_k": 2, "draft_total_tokens": 5}.items():
        setattr(drafter.generation_config, name, value)
    return drafter
