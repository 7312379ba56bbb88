"""Tiny random drafters of every family and of every combination of drafting and visual handling, and their prompts."""

import torch

from hf_mmspec.modeling import FAMILIES, Drafter, TargetPrompt
from hf_mmspec.modeling.fixed_tree import EAGLE1_TREE
from tests.modeling import tiny

SIZES = {
    "vocab_size": tiny.VOCAB,
    "hidden_size": tiny.HIDDEN,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "initializer_range": 0.2,
}
EAGLE3 = {"draft_vocab_size": tiny.VOCAB, "feature_layers": [0, 1, 3]}
# name -> (family, fields)
DRAFTERS = {
    "vispec": ("vispec", {"num_q": 3}),
    "vispec, no global feature": ("vispec", {"num_q": 2, "global_feature": False}),
    "msd": ("msd", {"num_key_value_heads": 2}),
    "msd, qwen style": ("msd", {"input_norm": True, "attention_bias": True}),
    "eagle": ("eagle", {}),
    "eagle, fixed tree": ("eagle", {"tree_choices": [list(path) for path in EAGLE1_TREE]}),
    "eagle3": ("eagle3", EAGLE3),
    "eagle3, borrowed head, two layers": ("eagle3", {"feature_layers": [2], "num_hidden_layers": 2}),
    "eagle3, narrower than its target": ("eagle3", {**EAGLE3, **tiny.of_width(16), "num_key_value_heads": 2}),
    "eagle3, wider, on flash's latents": (
        "eagle3",
        {**EAGLE3, **tiny.of_width(48), "visual": "latents", "num_latents": 3},
    ),
    "flash": ("flash", {"num_latents": 3}),
    "flash, released rows": ("flash", {"num_latents": 3, "released_rows": True}),
    "flash, as released": ("flash", {"num_latents": 3, "reference_compat": True}),
    # combinations that nobody has published
    "eagle3 on vispec's rows": ("eagle3", {**EAGLE3, "visual": "adaptor"}),
    "eagle3 on flash's latents": ("eagle3", {**EAGLE3, "visual": "latents", "num_latents": 3}),
    "eagle3 on raw rows": ("eagle3", {**EAGLE3, "visual": "raw"}),
    "slots on vispec's rows": ("flash", {"visual": "adaptor", "num_q": 3}),
    "slots on raw rows, no refiner": ("flash", {"visual": "raw", "refiner": False, "num_hidden_layers": 2}),
    "eagle without images": ("eagle", {"visual": "skipped"}),
    "eagle3 without images": ("eagle3", {**EAGLE3, "visual": "skipped"}),
    "slots without images": ("flash", {"visual": "skipped"}),
    "eagle on flash's latents": ("eagle", {"visual": "latents", "num_latents": 3}),
}


def build(name: str, **overrides) -> Drafter:
    """A random drafter whose every part matters: no bias or gate is at its neutral start."""
    family, fields = DRAFTERS[name]
    config_class, drafter_class = FAMILIES[family]
    torch.manual_seed(3)
    drafter = drafter_class(config_class(**{**SIZES, **fields, **overrides})).eval()
    for parameter_name, parameter in drafter.named_parameters():
        if parameter.dim() == 1 or parameter_name in ("img_fc.weight", "slot_embeddings"):
            torch.nn.init.normal_(parameter, mean=float("norm" in parameter_name), std=0.2)
    return drafter


def prompt_for(drafter: Drafter, spans=(), length=30, seed=0) -> TargetPrompt:
    """A random prompt, with ids and with features of the width that the drafter reads."""
    prompt = tiny.prompt(spans, length, seed)
    width = tiny.HIDDEN * len(drafter.feature_layers or (0,))
    generator = torch.Generator().manual_seed(seed + 1)
    prompt.input_ids = torch.randint(tiny.VOCAB, (1, length), generator=generator)
    prompt.input_ids[prompt.visual_mask] = tiny.VOCAB - 1  # the placeholder
    prompt.features = torch.randn(1, length, width, generator=generator)
    return prompt
