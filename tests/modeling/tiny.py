"""Tiny random drafters and prompts for tests of modeling/."""

import torch

from hf_mmspec.modeling import BorrowedParts, TargetPrompt, ViSpecConfig, ViSpecDrafter

VOCAB, HIDDEN = 120, 32


def of_width(width: int) -> dict[str, int]:
    """Fields of a drafter that is not as wide as its target."""
    return {"hidden_size": width, "target_hidden_size": HIDDEN}


def config(**overrides) -> ViSpecConfig:
    sizes = {
        "vocab_size": VOCAB,
        "hidden_size": HIDDEN,
        "intermediate_size": 48,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "initializer_range": 0.2,
    }
    return ViSpecConfig(**{**sizes, **overrides})


def drafter(**overrides) -> ViSpecDrafter:
    torch.manual_seed(3)
    made = ViSpecDrafter(config(**overrides)).eval()
    if made.img_fc is not None:
        torch.nn.init.normal_(made.img_fc.weight, std=0.2)  # so that the global feature matters
        torch.nn.init.normal_(made.img_fc.bias, std=0.2)
    return made


def borrowed() -> BorrowedParts:
    torch.manual_seed(4)
    return BorrowedParts(
        torch.nn.Embedding(VOCAB, HIDDEN),
        torch.nn.Linear(HIDDEN, VOCAB, bias=False),
        vocab_size=VOCAB,
        head_size=VOCAB,
    )


def prompt(spans=(), length=30, seed=0) -> TargetPrompt:
    generator = torch.Generator().manual_seed(seed)
    embeds, features = torch.randn(2, 1, length, HIDDEN, generator=generator)
    return TargetPrompt(None, embeds, features, list(spans))
