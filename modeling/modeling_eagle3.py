"""EAGLE-3 (arXiv 2503.01840): features of several target layers, embeddings beside them, an own norm and head.

Only the first layer, the projection and the head are its own; drafting and training are those of `autoregressive.py`.
"""

from math import gcd
from typing import Any

import torch
from torch import nn
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRMSNorm

from .autoregressive import AutoregressiveDrafter, decoder_layer
from .binding import DrafterMismatchError, describe_target, unwrap
from .configuration_eagle3 import Eagle3Config
from .draft_state import BorrowedParts


class Eagle3Layer(LlamaDecoderLayer):
    """A Llama layer whose attention reads `[embedding ; feature]`, each normed, on a residual stream of features."""

    def __init__(self, config: Eagle3Config, index: int):
        super().__init__(config, index)
        attention, width = self.self_attn, 2 * config.hidden_size
        for name in ("q_proj", "k_proj", "v_proj"):
            rows = getattr(attention, name).out_features
            setattr(attention, name, nn.Linear(width, rows, bias=config.attention_bias))
        attention.o_proj = nn.Linear(attention.o_proj.in_features, config.hidden_size, bias=False)
        self.hidden_norm = LlamaRMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.norm_before_residual = config.norm_before_residual

    def forward(self, hidden_states: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """`(B, R, 2H)`, embedding first, to `(B, R, H)`."""
        embeddings, features = hidden_states.chunk(2, dim=-1)
        normed = self.hidden_norm(features)
        residual = normed if self.norm_before_residual else features
        attended, _ = self.self_attn(torch.cat([self.input_layernorm(embeddings), normed], dim=-1), **kwargs)
        x = residual + attended
        return x + self.mlp(self.post_attention_layernorm(x))


class Eagle3Drafter(AutoregressiveDrafter):
    """The EAGLE-3 drafter. Text row: the pair `[embedding ; feature]`, where a target feature is the projection `fc`
    of several layers' states and a drafted one is the drafter's own output, not normed.

    A visual row of `config.visual` stands for both members of the pair.
    """

    config_class = Eagle3Config
    config: Eagle3Config

    def __init__(self, config: Eagle3Config):
        super().__init__(config)
        self.fc = nn.Linear(config.num_features * config.target_width, config.hidden_size, bias=config.fc_bias)
        self.norm = LlamaRMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.post_init()

    def feature_layers_of(self, target: Any) -> tuple[int, ...]:
        layers = unwrap(target).config.get_text_config(decoder=True).num_hidden_layers
        taps = self.config.feature_layers
        return tuple(Eagle3Config.authors_taps(layers) if taps is None else taps)

    @property
    def feature_layers(self) -> tuple[int, ...]:
        if self.config.feature_layers is None:
            raise ValueError("which layers this drafter reads depends on the target: use `feature_layers_of(target)`")
        return tuple(self.config.feature_layers)

    def make_layer(self, index: int) -> nn.Module:
        return Eagle3Layer(self.config, 0) if index == 0 else decoder_layer(self.config, index, input_norm=True)

    def project(self, features: torch.Tensor) -> torch.Tensor:
        return self.fc(features)

    def fuse(
        self, embeddings: torch.Tensor, features: torch.Tensor, image_features: torch.Tensor | None
    ) -> torch.Tensor:
        return torch.cat([embeddings, self.see_image(features, image_features)], dim=-1)

    def visual_as_inputs(self, visual_inputs: torch.Tensor) -> torch.Tensor:
        return torch.cat([visual_inputs, visual_inputs], dim=-1)

    def draft_logits(self, hidden: torch.Tensor, borrowed: BorrowedParts | None = None) -> torch.Tensor:
        return super().draft_logits(self.norm(hidden), borrowed)

    def bind(self, target: Any) -> BorrowedParts:
        layers = unwrap(target).config.get_text_config(decoder=True).num_hidden_layers
        try:
            taps = self.feature_layers_of(target)
        except ValueError as error:
            raise DrafterMismatchError(f"the drafter reads the authors' three layers, but {error}") from error
        if taps[-1] >= layers:
            raise DrafterMismatchError(
                f"the drafter reads the inputs of layers {list(taps)} but the target has {layers} "
                "layers (0 is the first): it was made for another target, or its ids count from another layer."
            )
        return super().bind(target)

    @classmethod
    def from_target(cls, target: Any, draft_token_ids: torch.Tensor | None = None, **overrides):
        """As `Drafter.from_target`, with the authors' three layers, and an own head over all tokens where nothing is
        said about the vocabulary. With another `hidden_size` than the target's the layer shrinks (or grows) with it,
        its heads as large as the target's.

        Raises:
            ValueError: the target has too few layers for the authors' choice: give `feature_layers`.
        """
        text = unwrap(target).config.get_text_config(decoder=True)
        if "feature_layers" not in overrides:
            overrides["feature_layers"] = Eagle3Config.authors_taps(text.num_hidden_layers)
        overrides.setdefault("draft_vocab_size", text.vocab_size)
        if overrides.get("hidden_size", text.hidden_size) != text.hidden_size:
            overrides = {**_layer_of_another_width(describe_target(target), overrides), **overrides}
        return super().from_target(target, draft_token_ids, **overrides)


def _layer_of_another_width(target: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    """Sizes in proportion to `wanted["hidden_size"]`, from what `describe_target` gave. The head size is kept where
    nobody wants another one, as rotary embeddings depend on it."""
    width, target_width = wanted["hidden_size"], target["hidden_size"]
    head_dim = wanted.get("head_dim") or target["head_dim"] or target_width // target["num_attention_heads"]
    if "num_attention_heads" in wanted and "head_dim" not in wanted:
        head_dim = width // wanted["num_attention_heads"]
    heads = wanted.get("num_attention_heads") or max(width // head_dim, 1)
    return {
        "target_hidden_size": target_width,
        "head_dim": head_dim,
        "num_attention_heads": heads,
        "num_key_value_heads": gcd(heads, target["num_key_value_heads"] or heads),
        "intermediate_size": max(8 * round(target["intermediate_size"] * width / target_width / 8), 8),
    }
