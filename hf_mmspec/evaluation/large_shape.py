"""A target of Qwen2.5-VL-7B's shape with random weights: what forwards and rounds cost where no checkpoint is at hand.

`python -m hf_mmspec.evaluation.large_shape --json F`. Random drafters are never right, so this says how a round is
split, and nothing about acceptance.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from transformers import DynamicCache, PreTrainedModel, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from hf_mmspec.modeling import FAMILIES, Drafter

from .machine import machine_facts

SEVEN_B: dict[str, Any] = {
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "vocab_size": 152064,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
}
DRAFTERS: dict[str, dict[str, Any]] = {"vispec": {}, "flash": {"num_slots": 8, "dropout": 0.0}}
BUDGETS: tuple[dict[str, Any], ...] = (
    {"draft_mode": "chain", "draft_depth": 4},
    {"draft_mode": "chain", "draft_depth": 7},
    {"draft_mode": "tree", "draft_depth": 5, "draft_top_k": 8, "draft_total_tokens": 30},
)
SIZES = (1, 2, 4, 8, 16, 32, 64)
_DRAFT_VOCABULARY = 32_000


def random_target(shape: dict[str, Any], device: str, dtype: torch.dtype) -> PreTrainedModel:
    """A Qwen2.5-VL of this shape; its tower is a stub, since only text is read."""
    tower = {"depth": 1, "hidden_size": 64, "num_heads": 4, "intermediate_size": 64}
    config = Qwen2_5_VLConfig(text_config=shape, vision_config={**tower, "out_hidden_size": shape["hidden_size"]})
    config.dtype = dtype
    with torch.device(device):
        model = Qwen2_5_VLForConditionalGeneration._from_config(config, dtype=dtype).eval()
    model.generation_config.eos_token_id = None
    return model


def random_drafter(family: str, target: PreTrainedModel) -> Drafter:
    """A drafter of the target, with random weights."""
    vocabulary = target.config.get_text_config().vocab_size
    ids = torch.arange(min(_DRAFT_VOCABULARY, vocabulary))
    drafter = FAMILIES[family][1].from_target(target, ids, real_vocab_size=vocabulary, **DRAFTERS[family])
    return drafter.to(target.device, target.dtype).eval()


@torch.inference_mode()
def forward_times(target: PreTrainedModel, prefix: int, sizes: Sequence[int], repetitions: int) -> dict[int, float]:
    """Milliseconds of a forward over so many tokens behind a cache of `prefix` tokens, logits read: medians."""
    cache = DynamicCache(config=target.config.get_text_config())
    target(input_ids=random_ids(target, prefix), cache=cache, use_cache=True, logits_to_keep=1)
    found = {}
    for size in sizes:
        times = []
        for _ in range(repetitions):
            ids = random_ids(target, size)
            start = time.perf_counter()
            target(input_ids=ids, cache=cache, use_cache=True).logits.argmax(-1).tolist()
            times.append(time.perf_counter() - start)
            cache.crop(-size)
        found[size] = 1e3 * median(times)
    return found


def round_split(
    target: PreTrainedModel, drafter: Drafter, prefix: int, tokens: int, budget: dict[str, Any]
) -> dict[str, Any]:
    """Milliseconds of a round by part, and the share of verification in it (loop efficiency)."""
    ids = random_ids(target, prefix)
    options = {"do_sample": False, "max_new_tokens": tokens, "return_dict_in_generate": True, **budget}
    for _ in range(2):  # the first is the warm-up
        out = target.generate(ids, attention_mask=torch.ones_like(ids), assistant_model=drafter, **options)
    done = out.speculation
    parts = {name: 1e3 * seconds / done.rounds for name, seconds in done.seconds.items() if name != "prefill"}
    facts = {"budget": budget, "rounds": done.rounds, "ms_per_round": parts}
    return facts | {"loop_efficiency": parts["verify"] / sum(parts.values())}


def random_ids(target: PreTrainedModel, count: int) -> torch.Tensor:
    """`int64 (1, count)` of ordinary tokens."""
    return torch.randint(100, min(1900, target.config.get_text_config().vocab_size), (1, count), device=target.device)


def measure(target: PreTrainedModel, prefix: int, tokens: int, repetitions: int) -> dict[str, Any]:
    """Forwards, and rounds of each family with each budget."""
    forwards = forward_times(target, prefix, SIZES, repetitions)
    found: dict[str, Any] = {
        "forward_ms": forwards,
        "v": {size: each / forwards[1] for size, each in forwards.items()},
    }
    for family in DRAFTERS:
        drafter = random_drafter(family, target)
        found[family] = [round_split(target, drafter, prefix, tokens, budget) for budget in BUDGETS]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    parser.add_argument("--prefix", type=int, default=1024, help="tokens of the prompt")
    parser.add_argument("--max-new-tokens", type=int, default=32)
    parser.add_argument("--repetitions", type=int, default=12)
    parser.add_argument("--layers", type=int, default=SEVEN_B["num_hidden_layers"], help="fewer, to try it out")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    target = random_target({**SEVEN_B, "num_hidden_layers": arguments.layers}, device, torch.bfloat16)
    found = measure(target, arguments.prefix, arguments.max_new_tokens, arguments.repetitions)
    report = {"machine": machine_facts(target.dtype, target.device), "layers": arguments.layers, **found}
    print(json.dumps(report, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
