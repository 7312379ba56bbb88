"""A target of Qwen2.5-VL-7B's shape with random weights: what forwards and rounds cost where no checkpoint is at hand.

`python -m hf_mmspec.evaluation.large_shape --json F`. The target counts: behind a token comes the next id. Its EAGLE-2
drafter counts too, but cannot say every fifth id, so four drafts are accepted in every round that asks for more. The
other drafters are random and never right. This says how a round is split, and nothing about a trained drafter.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from transformers import DynamicCache, PreTrainedModel, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from hf_mmspec.modeling import FAMILIES, Drafter
from hf_mmspec.quantise import WORDS, packing
from hf_mmspec.whole_file import write_json

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
DRAFTERS: dict[str, dict[str, Any]] = {"eagle": {}, "vispec": {}, "flash": {"num_slots": 8, "dropout": 0.0}}
COUNTING = "eagle"
BUDGETS: tuple[dict[str, Any], ...] = (
    {"draft_mode": "chain", "draft_depth": 4},
    {"draft_mode": "chain", "draft_depth": 7},
    {"draft_mode": "tree", "draft_depth": 5, "draft_top_k": 8, "draft_total_tokens": 30},
)
CHAIN = BUDGETS[1]
SIZES = (1, 2, 4, 8, 16, 32, 64)
ACCEPTED = 4  # drafts of the counting drafter in a round, where it may draft more
_DRAFT_VOCABULARY = 40_000
_QUIET = 1e-3  # what layers add to a residual stream that has to stay its token's


def counting_target(shape: dict[str, Any], device: str, dtype: torch.dtype) -> PreTrainedModel:
    """A Qwen2.5-VL of this shape that says id t + 1 behind id t; its tower is a stub, since only text is read."""
    tower = {"depth": 1, "hidden_size": 64, "num_heads": 4, "intermediate_size": 64}
    config = Qwen2_5_VLConfig(text_config=shape, vision_config={**tower, "out_hidden_size": shape["hidden_size"]})
    config.dtype = dtype
    with torch.device(device):
        model = Qwen2_5_VLForConditionalGeneration._from_config(config, dtype=dtype).eval()
    model.generation_config.eos_token_id = None
    embeddings = model.get_input_embeddings().weight
    with torch.no_grad():
        embeddings.normal_()
        model.get_output_embeddings().weight.copy_(embeddings.roll(1, dims=0))
        quieten(model.get_decoder().layers)
    return model


def packed(target: PreTrainedModel, word: str) -> PreTrainedModel:
    """The same with its decoder's weights in 4 or 8 bits, loaded as users load theirs."""
    with tempfile.TemporaryDirectory() as folder:
        target.save_pretrained(folder)
        config = packing(word, target.dtype, ["visual", "lm_head"])
        model = type(target).from_pretrained(
            folder, quantization_config=config, dtype=target.dtype, device_map={"": target.device}
        )
    model.generation_config.eos_token_id = None
    return model.eval()


def drafter_of(family: str, target: PreTrainedModel) -> Drafter:
    """A drafter of the target: one that counts four steps of five, or one with random weights."""
    vocabulary = target.config.get_text_config().vocab_size
    ids = torch.arange(min(_DRAFT_VOCABULARY, vocabulary))
    ids = ids[ids % (ACCEPTED + 1) > 0]
    drafter = FAMILIES[family][1].from_target(target, ids, real_vocab_size=vocabulary, **DRAFTERS[family])
    if family == COUNTING:
        with torch.no_grad():
            width = drafter.config.hidden_size
            drafter.fc.weight.copy_(torch.eye(width, 2 * width))  # the embedding, and nothing of the features
            quieten(drafter.layers)
    return drafter.to(target.device, target.dtype).eval()


def quieten(layers: Iterable[Any]) -> None:
    """Layers that cost what they cost and add next to nothing."""
    for layer in layers:
        layer.self_attn.o_proj.weight.mul_(_QUIET)
        layer.mlp.down_proj.weight.mul_(_QUIET)


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
    """Acceptance length, milliseconds of a round by part, the share of verification in it (loop efficiency), and
    milliseconds of a token."""
    ids = random_ids(target, prefix)
    options = {"do_sample": False, "max_new_tokens": tokens, "return_dict_in_generate": True, **budget}
    for _ in range(2):  # the first is the warm-up
        out = target.generate(ids, attention_mask=torch.ones_like(ids), assistant_model=drafter, **options)
    done = out.speculation
    parts = {name: 1e3 * seconds / done.rounds for name, seconds in done.seconds.items() if name != "prefill"}
    of_round = sum(parts.values())
    return {
        "budget": budget,
        "rounds": done.rounds,
        "acceptance_length": done.acceptance_length,
        "ms_per_round": parts,
        "loop_efficiency": parts["verify"] / of_round,
        "ms_per_token": of_round / done.acceptance_length,
    }


def stock_ms(target: PreTrainedModel, prefix: int, tokens: int) -> float:
    """Milliseconds of a token of `generate` without a drafter, the prompt not counted."""
    ids = random_ids(target, prefix)
    seconds = []
    for count in (tokens, 1, tokens):  # the first is the warm-up
        start = time.perf_counter()
        target.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=count).tolist()
        seconds.append(time.perf_counter() - start)
    return 1e3 * (seconds[2] - seconds[1]) / (tokens - 1)


def random_ids(target: PreTrainedModel, count: int) -> torch.Tensor:
    """`int64 (1, count)` of ordinary tokens."""
    return torch.randint(100, min(1900, target.config.get_text_config().vocab_size), (1, count), device=target.device)


def measure(target: PreTrainedModel, prefix: int, tokens: int, repetitions: int) -> dict[str, Any]:
    """Forwards, and rounds of each family with each budget."""
    forwards = forward_times(target, prefix, SIZES, repetitions)
    found: dict[str, Any] = {
        "forward_ms": forwards,
        "v": {size: each / forwards[1] for size, each in forwards.items()},
        "stock_ms_per_token": stock_ms(target, prefix, tokens),
    }
    for family in DRAFTERS:
        drafter = drafter_of(family, target)
        found[family] = [round_split(target, drafter, prefix, tokens, budget) for budget in BUDGETS]
    return found


def measure_compiled(target: PreTrainedModel, prefix: int, tokens: int, options: dict[str, Any]) -> dict[str, Any]:
    """Rounds of the counting drafter with the target compiled, and with both; the seconds of compiling are in none."""
    drafter = drafter_of(COUNTING, target)
    target.forward = torch.compile(target.forward, **options)
    found = {"target": [round_split(target, drafter, prefix, tokens, CHAIN)]}
    drafter.compile(**options)
    return {"options": options, **found, "both": [round_split(target, drafter, prefix, tokens, CHAIN)]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    parser.add_argument("--prefix", type=int, default=1024, help="tokens of the prompt")
    parser.add_argument("--max-new-tokens", type=int, default=64)
    parser.add_argument("--repetitions", type=int, default=12)
    parser.add_argument("--layers", type=int, default=SEVEN_B["num_hidden_layers"], help="fewer, to try it out")
    parser.add_argument("--quantize", choices=WORDS, help="pack the target's weights")
    parser.add_argument("--compile-mode", help="compile instead, and time rounds alone: a mode of torch.compile")
    parser.add_argument("--compile-backend", help="likewise: a backend of torch.compile, such as cudagraphs")
    parser.add_argument(
        "--static-shapes",
        dest="dynamic",
        action="store_false",
        default=None,
        help="a graph for each shape, no general one",
    )
    arguments = parser.parse_args()
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    target = counting_target({**SEVEN_B, "num_hidden_layers": arguments.layers}, device, torch.bfloat16)
    if arguments.quantize:
        target = packed(target, arguments.quantize)
    machine = machine_facts(target.dtype, target.device)
    options = {"mode": arguments.compile_mode, "backend": arguments.compile_backend, "dynamic": arguments.dynamic}
    if arguments.compile_mode or arguments.compile_backend:
        chosen = {name: value for name, value in options.items() if value is not None}
        found = measure_compiled(target, arguments.prefix, arguments.max_new_tokens, chosen)
    else:
        found = measure(target, arguments.prefix, arguments.max_new_tokens, arguments.repetitions)
    report = {"machine": machine, "layers": arguments.layers, "quantization": arguments.quantize, **found}
    print(json.dumps(report, indent=1))
    if arguments.json:
        write_json(arguments.json, report)


if __name__ == "__main__":
    main()
