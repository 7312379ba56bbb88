"""Puts base, tower, projector and LoRA together to a native `LlavaForConditionalGeneration`.

Its border: arithmetic in memory. Where the result is kept is `loader.py`.
"""

import torch
from transformers import LlavaConfig, LlavaForConditionalGeneration, PreTrainedModel

from .tower import VISUAL_TOKENS, tower_config
from .weights import Tensors

IMAGE_TOKEN_ID = 16


@torch.no_grad()
def merge_lora(model: PreTrainedModel, lora: Tensors, scale: float) -> None:
    """W += scale * B @ A, in float32, for every module MODULE with `MODULE.A` [r, in] and `MODULE.B` [out, r]."""
    modules = {name.rpartition(".")[0] for name in lora}
    for name in modules:
        weight = model.get_submodule(name).weight
        delta = lora[f"{name}.B"].float() @ lora[f"{name}.A"].float()
        weight.copy_((weight.float() + scale * delta).to(weight.dtype))


def _config(base: PreTrainedModel, width: int, depth: int) -> LlavaConfig:
    return LlavaConfig(
        vision_config=tower_config(width, depth),
        text_config=base.config,
        image_token_index=IMAGE_TOKEN_ID,
        image_seq_length=VISUAL_TOKENS,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        tie_word_embeddings=True,
    )


def _floats(tensors: Tensors) -> Tensors:
    return {name: t.float() if t.is_floating_point() else t for name, t in tensors.items()}


@torch.no_grad()
def build_target(base: PreTrainedModel, parts: dict[str, Tensors], metadata: dict[str, str]) -> PreTrainedModel:
    """A float32 LLaVA from a float32 SmolLM2 (consumed) and the committed parts."""
    merge_lora(base.model, parts["lora"], float(metadata["lora_scale"]))
    config = _config(base, int(metadata["width"]), int(metadata["depth"]))
    model = LlavaForConditionalGeneration(config).float()
    model.model.language_model.load_state_dict(base.model.state_dict())
    model.model.vision_tower.load_state_dict(_floats(parts["tower"]))
    model.model.multi_modal_projector.load_state_dict(_floats(parts["projector"]))
    model.tie_weights()
    model.generation_config.update(eos_token_id=2, pad_token_id=2, bos_token_id=1)
    return model.eval()
