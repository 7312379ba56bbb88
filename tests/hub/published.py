"""Checkpoints as their authors publish them: their names, configs, dtypes and files, at tiny sizes.

Each is written from one of our drafters with random weights, through tables of its own (not those under test), so
that the drafter it came from says what the conversion must give back.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from hf_mmspec.modeling import FAMILIES, Drafter

VOCAB, HIDDEN, HEADS, DRAFT_VOCAB = 120, 32, 4, 24
SIZES = {
    "hidden_size": HIDDEN,
    "intermediate_size": 48,
    "num_attention_heads": HEADS,
    "num_key_value_heads": 2,
    "num_hidden_layers": 1,
    "rms_norm_eps": 1e-05,
    "vocab_size": VOCAB,
}
LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "max_position_embeddings": 2048,
    "model_type": "llama",
    "pad_token_id": 0,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
    "transformers_version": "4.28.1",
    "use_cache": True,
    **SIZES,
}
IDS = torch.arange(2, VOCAB, 5)[:DRAFT_VOCAB]


@dataclass
class Published:
    """One checkpoint before it is written.

    Args:
        family: ours.
        config: the authors' config.json.
        names: our parameter name -> theirs.
        fields: config fields of our drafter with the same weights.
        dtype: of the weights.
        extras: tensors that are not the drafter's.
    """

    family: str
    config: dict[str, Any]
    names: Callable[[str], str]
    fields: dict[str, Any]
    dtype: torch.dtype
    extras: dict[str, torch.Tensor]

    def drafter(self) -> Drafter:
        """Ours, with random weights in every parameter."""
        config_class, drafter_class = FAMILIES[self.family]
        sizes = {**SIZES, "rope_theta": 10000.0, "max_position_embeddings": 2048}
        made = drafter_class(config_class(**{**sizes, **self.fields}))
        generator = torch.Generator().manual_seed(5)
        for parameter in made.parameters():
            parameter.data = (torch.randn(parameter.shape, generator=generator) * 0.2).to(self.dtype)
        if made.d2t is not None and len(made.d2t) == DRAFT_VOCAB:
            made.d2t = IDS - torch.arange(DRAFT_VOCAB)
        return made.eval()

    def tensors(self) -> dict[str, torch.Tensor]:
        """The file's content."""
        ours = self.drafter().state_dict()
        is_full = "d2t" in ours and len(ours["d2t"]) == VOCAB
        theirs = {self.names(name): tensor for name, tensor in ours.items() if not (name == "d2t" and is_full)}
        return {**theirs, **self.extras}


def embeddings(dtype: torch.dtype) -> torch.Tensor:
    """The frozen copy of the target's embeddings."""
    return torch.randn(VOCAB, HIDDEN, generator=torch.Generator().manual_seed(6)).to(dtype)


def renamed(table: dict[str, str]) -> Callable[[str], str]:
    """Our names to theirs by exact beginnings."""

    def rename(name: str) -> str:
        for ours, theirs in table.items():
            if name.startswith(ours):
                return theirs + name.removeprefix(ours)
        return name

    return rename


def _same(name: str) -> str:
    return name


def _t2d() -> torch.Tensor:
    return torch.zeros(VOCAB, dtype=torch.bool).index_fill(0, IDS, True)


def vispec() -> Published:
    """JLKang/ViSpec-llava-v1.6-vicuna-7b-hf: EAGLE's config, the number of queries is nowhere."""
    table = {"image_adaptor.queries": "imadpt.q", "image_adaptor.": "imadpt."}
    extras = {"embed_tokens.weight": embeddings(torch.bfloat16)}
    return Published("vispec", {**LLAMA}, renamed(table), {"rms_norm_eps": 1e-5}, torch.bfloat16, extras)


def msd_llava() -> Published:
    """lucylyn/MSD-LLaVA1.5-7B."""
    config = {
        **LLAMA,
        "architectures": ["LlavaLlamaForCausalLM"],
        "model_type": "llava",
        "rope_scaling": None,
        "pretraining_tp": 1,
        "max_position_embeddings": 4096,
        "torch_dtype": "bfloat16",
    }
    fields = {"max_position_embeddings": 4096}
    return Published("msd", config, _same, fields, torch.bfloat16, {"embed_tokens.weight": embeddings(torch.bfloat16)})


def msd_qwen2_vl() -> Published:
    """lucylyn/MSD-Qwen2VL-7B-Instruct: input norm, biases, no pad id."""
    config = {
        **LLAMA,
        "architectures": ["Qwen2VLForConditionalGeneration"],
        "attention_dropout": 0.0,
        "model_type": "qwen2_vl",
        "max_position_embeddings": 32768,
        "max_window_layers": 1,
        "rms_norm_eps": 1e-06,
        "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]},
        "rope_theta": 1000000.0,
        "sliding_window": 32768,
        "use_sliding_window": False,
        "torch_dtype": "bfloat16",
    }
    del config["pad_token_id"]
    fields = {
        "attention_bias": True,
        "input_norm": True,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e6,
        "max_position_embeddings": 32768,
    }
    extras = {"embed_tokens.weight": embeddings(torch.bfloat16)}
    return Published("msd", config, _same, fields, torch.bfloat16, extras)


def eagle() -> Published:
    """yuhuili/EAGLE-LLaMA3-Instruct-8B: no bias in fc, theta of Llama 3, an old rotary table."""
    config = {**LLAMA, "rope_theta": 500000.0, "bias": False}
    extras = {
        "embed_tokens.weight": embeddings(torch.float16),
        "layers.0.self_attn.rotary_emb.inv_freq": torch.ones(HIDDEN // HEADS // 2),
    }
    return Published("eagle", config, _same, {"fc_bias": False, "rope_theta": 5e5}, torch.float16, extras)


def eagle_qkv_bias() -> Published:
    """yuhuili/EAGLE-Qwen2-7B-Instruct: biases of q, k and v, and of fc (which is the default)."""
    config = {**LLAMA, "qkv_bias": True, "rope_theta": 1000000.0}
    fields = {"attention_bias": True, "rope_theta": 1e6}
    return Published("eagle", config, _same, fields, torch.float16, {})


def eagle_speculators() -> Published:
    """EAGLE-1 in the spelling of the `speculators` package."""
    config = {
        "architectures": ["EagleSpeculator"],
        "fusion_bias": False,
        "layernorms": False,
        "speculators_config": {"algorithm": "eagle", "verifier": {"name_or_path": "a/model"}},
        "speculators_model_type": "eagle",
        "speculators_version": "0.1.0",
        "transformer_layer_config": {**LLAMA, "rope_theta": 500000.0, "attention_bias": False},
    }
    table = {"fc.": "fusion_fc.", "layers.0.": "transformer."}
    return Published("eagle", config, renamed(table), {"fc_bias": False, "rope_theta": 5e5}, torch.float16, {})


_EAGLE3 = {"draft_vocab_size": DRAFT_VOCAB, "feature_layers": None}
_MIDLAYER = renamed({"layers.0.": "midlayer."})


def eagle3() -> Published:
    """yuhuili/EAGLE3-LLaMA3.1-Instruct-8B: no embeddings in the file, no word about the target's layers."""
    config = {**LLAMA, "draft_vocab_size": DRAFT_VOCAB}
    return Published("eagle3", config, _MIDLAYER, {**_EAGLE3}, torch.float16, {"t2d": _t2d()})


def eagle3_angelslim() -> Published:
    """AngelSlim/Qwen3-VL-4B-Instruct_eagle3: head_dim of its own, the target's tie flag, interleaved M-RoPE."""
    config = {
        **LLAMA,
        "architectures": ["Eagle3LlamaForCausalLM"],
        "dtype": "bfloat16",
        "draft_vocab_size": DRAFT_VOCAB,
        "head_dim": 16,
        "image_token_id": 119,
        "modal_type": "VLM",
        "rope_scaling": {
            "type": "default",
            "rope_type": "default",
            "mrope_interleaved": True,
            "mrope_section": [4, 2, 2],
        },
        "rope_theta": 5000000,
        "tie_word_embeddings": True,
    }
    fields = {**_EAGLE3, "head_dim": 16, "rope_theta": 5e6}
    return Published("eagle3", config, _MIDLAYER, fields, torch.bfloat16, {"t2d": _t2d()})


def eagle3_specforge() -> Published:
    """SpecForge's Qwen2.5-VL drafters: nested layer ids that number outputs, a full vocabulary without maps."""
    config = {
        **LLAMA,
        "architectures": ["LlamaForCausalLMEagle3"],
        "attention_bias": False,
        "draft_vocab_size": VOCAB,
        "eagle_config": {"eagle_aux_hidden_state_layer_ids": [1, 13, 24], "use_aux_hidden_state": True},
        "head_dim": 8,
        "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]},
        "rope_theta": 1000000,
        "target_model_type": "qwen2_5_vl",
        "torch_dtype": "bfloat16",
        "use_sliding_window": False,
    }
    fields = {"draft_vocab_size": VOCAB, "feature_layers": [2, 14, 25], "rope_theta": 1e6}
    extras = {"embed_tokens.weight": embeddings(torch.bfloat16)}
    return Published("eagle3", config, _MIDLAYER, fields, torch.bfloat16, extras)


def eagle3_speculators() -> Published:
    """RedHatAI's `*-speculator.eagle3`: nested config, `layers.0`, layer ids that number inputs."""
    config = {
        "architectures": ["Eagle3Speculator"],
        "draft_vocab_size": DRAFT_VOCAB,
        "eagle_aux_hidden_state_layer_ids": [2, 16, 29],
        "embed_requires_grad": False,
        "norm_before_fc": False,
        "norm_before_residual": True,
        "speculators_config": {
            "algorithm": "eagle3",
            "default_proposal_method": "greedy",
            "proposal_methods": [{"proposal_type": "greedy", "speculative_tokens": 3}],
            "verifier": {"architectures": ["LlamaForCausalLM"], "name_or_path": "a/model"},
        },
        "speculators_model_type": "eagle3",
        "speculators_version": "0.4.0",
        "target_hidden_size": None,
        "transformer_layer_config": {
            **{name: value for name, value in LLAMA.items() if name not in ("architectures", "torch_dtype")},
            "head_dim": 8,
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 500000.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 512,
            },
        },
    }
    rope = config["transformer_layer_config"]["rope_parameters"]
    fields = {
        **_EAGLE3,
        "feature_layers": [2, 16, 29],
        "norm_before_residual": True,
        "rope_parameters": rope,
        "rope_theta": 5e5,
    }
    extras = {"embed_tokens.weight": embeddings(torch.bfloat16), "t2d": _t2d()}
    return Published("eagle3", config, _same, fields, torch.bfloat16, extras)


def eagle3_narrow() -> Published:
    """A drafter of another width than its target, with embeddings of its own."""
    widths = {"hidden_size": 64, "target_hidden_size": 48}
    config = {**LLAMA, **widths, "draft_vocab_size": DRAFT_VOCAB}
    return Published("eagle3", config, _MIDLAYER, {**_EAGLE3, **widths}, torch.float16, {"t2d": _t2d()})


_FLASH_NAMES = {
    "image_adaptor.queries": "A",
    "refiner.": "hydra_projs.",
    "slot_embeddings": "layers.slot_embeddings",
    "layers.0.input_layernorm.": "layers.input_layernorm.",
    "layers.0.post_attention_layernorm.": "layers.post_attn_layernorm.",
    "layers.0.self_attn.": "layers.",
    "layers.0.mlp.": "layers.",
}


def flash(refiner: bool = True) -> Published:
    """SpecFLASH's `nar_config.json`: much of it is not read by their code (eps, intermediate_size, n_layers)."""
    config = {
        **LLAMA,
        "architectures": ["LlavaForConditionalGeneration"],
        "attention_bias": False,
        "compress_len": 6,
        "image_token_id": 119,
        "image_token_per_image": 24,
        "k": 4,
        "n_layers": 1,
        "num_heads": 4,
        "rope_scaling": None,
        "rope_theta": 20000.0,
        "sar_head_dim": 4,
        "sar_num_heads": 8,
    }
    del config["pad_token_id"]
    fields = {
        "head_dim": 4,
        "intermediate_size": 4 * HIDDEN,
        "num_attention_heads": 8,
        "num_key_value_heads": 0,
        "num_latents": 6,
        "num_slots": 4,
        "released_rows": True,
        "refiner": refiner,
        "rms_norm_eps": 1e-6,
    }
    extras = {
        "embed_tokens.weight": embeddings(torch.float16),
        "layers.rotary_emb.inv_freq": 10000.0 ** -(torch.arange(0, 4, 2) / 4),
    }
    return Published("flash", config, renamed(_FLASH_NAMES), fields, torch.float16, extras)


def flash_base() -> Published:
    """The variant without `hydra_projs`."""
    return flash(refiner=False)


LAYOUTS = {
    make.__name__: make
    for make in (
        vispec,
        msd_llava,
        msd_qwen2_vl,
        eagle,
        eagle_qkv_bias,
        eagle_speculators,
        eagle3,
        eagle3_angelslim,
        eagle3_specforge,
        eagle3_speculators,
        eagle3_narrow,
        flash,
        flash_base,
    )
}


def save(folder: Path, config: dict[str, Any], tensors: dict[str, torch.Tensor], file: str = "safetensors") -> Path:
    """Write a checkpoint's folder; `file` is "safetensors", "bin", "sharded safetensors" or "sharded bin"."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    stem, ending = ("model", "safetensors") if file.endswith("safetensors") else ("pytorch_model", "bin")
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    if not file.startswith("sharded"):
        _save_file(tensors, folder / f"{stem}.{ending}")
        return folder
    names = sorted(tensors)
    halves = {1: names[::2], 2: names[1::2]}
    where = {name: f"{stem}-{i:05d}-of-00002.{ending}" for i, half in halves.items() for name in half}
    for i, half in halves.items():
        _save_file({name: tensors[name] for name in half}, folder / f"{stem}-{i:05d}-of-00002.{ending}")
    (folder / f"{stem}.{ending}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return folder


def _save_file(tensors: dict[str, torch.Tensor], file: Path) -> None:
    if file.suffix == ".bin":
        torch.save(tensors, file)
    else:
        save_file(tensors, file, metadata={"format": "pt"})
