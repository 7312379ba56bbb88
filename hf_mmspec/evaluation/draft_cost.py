"""What a round of drafting costs by family, size, vocabulary and image: `python -m hf_mmspec.evaluation.draft_cost`.

Times random drafters on random prompts; there is no target, and acceptance plays no part.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import TypeVar

import torch
from torch import nn

from hf_mmspec.demo import fast_dtype
from hf_mmspec.modeling import FAMILIES, BorrowedParts, DraftBudget, Drafter, TargetPrompt
from hf_mmspec.whole_file import write_json, write_whole

from .machine import machine_facts
from .markdown import markdown_table

Result = TypeVar("Result")

# name -> (family, fields): the published shapes
DRAFTERS: dict[str, tuple[str, dict]] = {
    "eagle": ("eagle", {}),
    "msd": ("msd", {}),
    "vispec": ("vispec", {}),
    "eagle3": ("eagle3", {"feature_layers": [2, 15, 27]}),
    "flash": ("flash", {"num_latents": 64}),
}
# hidden size -> (MLP width, heads, key and value heads): SmolLM2-135M, Qwen2.5-VL-3B, Qwen2.5-VL-7B
SHAPES = {576: (1536, 9, 3), 2048: (11008, 16, 2), 3584: (18944, 28, 4)}
IMAGE_GROWTH = (64, 144, 256, 576, 1024, 1600, 2304, 2880)
TEXT_TOKENS = 100
ACCEPTED_ROWS = 3


@dataclass(frozen=True)
class Setting:
    """One line of the table: a drafter and the prompt that it has read."""

    drafter: str
    hidden_size: int
    vocab_size: int
    draft_vocab_size: int | None
    image_tokens: int


@dataclass(frozen=True)
class Cost:
    """Median milliseconds of reading the prompt, of reading the accepted rows, of the tree, and of a round (the last
    two); `cache_rows` is what the drafter keeps of the prompt, `levels` how many it drafts."""

    prefill: float
    extend: float
    propose: float
    round: float
    cache_rows: int
    levels: int


def build(setting: Setting, device: torch.device, dtype: torch.dtype) -> tuple[Drafter, BorrowedParts]:
    """A random drafter, and embeddings and head of a target of that size."""
    family, fields = DRAFTERS[setting.drafter]
    config_class, drafter_class = FAMILIES[family]
    hidden = setting.hidden_size
    mlp, heads, groups = SHAPES[hidden]
    if family == "flash":
        mlp, groups = 4 * hidden, heads
    draft_vocab_size = setting.draft_vocab_size
    if family == "eagle3":
        draft_vocab_size = draft_vocab_size or setting.vocab_size
    config = config_class(
        **fields,
        vocab_size=setting.vocab_size,
        draft_vocab_size=draft_vocab_size,
        hidden_size=hidden,
        intermediate_size=mlp,
        num_attention_heads=heads,
        num_key_value_heads=groups,
        head_dim=hidden // heads,
    )
    torch.manual_seed(0)
    embeddings = nn.Embedding(setting.vocab_size, hidden, device=device, dtype=dtype)
    head = nn.Linear(hidden, setting.vocab_size, bias=False, device=device, dtype=dtype)
    borrowed = BorrowedParts(embeddings, head, setting.vocab_size, setting.vocab_size)
    return drafter_class(config).to(device=device, dtype=dtype).eval(), borrowed


def make_prompt(setting: Setting, drafter: Drafter, device: torch.device, dtype: torch.dtype) -> TargetPrompt:
    """Text, then the image, then text."""
    length, start = TEXT_TOKENS + setting.image_tokens, TEXT_TOKENS // 2
    width = setting.hidden_size * len(drafter.feature_layers or (0,))
    embeds = torch.randn(1, length, setting.hidden_size, device=device, dtype=dtype)
    features = torch.randn(1, length, width, device=device, dtype=dtype)
    spans = [(start, start + setting.image_tokens)] if setting.image_tokens else []
    return TargetPrompt(None, embeds, features, spans)


@torch.inference_mode()
def measure(setting: Setting, budget: DraftBudget, device: torch.device, dtype: torch.dtype, repetitions: int) -> Cost:
    """Prefill, then rounds. The state is made anew for each repetition, so that its cache does not grow."""
    drafter, borrowed = build(setting, device, dtype)
    prompt = make_prompt(setting, drafter, device, dtype)
    token = torch.zeros(1, 1, dtype=torch.long, device=device)
    tokens = torch.ones(1, ACCEPTED_ROWS, dtype=torch.long, device=device)
    features = prompt.features[:, :ACCEPTED_ROWS]
    times: dict[str, list[float]] = {"prefill": [], "extend": [], "propose": []}
    for repetition in range(repetitions + 1):
        seconds, state = _timed(partial(drafter.prefill, prompt, token, borrowed), device)
        rows = state.cache.stable
        extend, _ = _timed(partial(drafter.extend, state, features, tokens), device)
        propose, _ = _timed(partial(drafter.propose, state, budget), device)
        if repetition:  # the first pays for kernels and memory
            for name, value in (("prefill", seconds), ("extend", extend), ("propose", propose)):
                times[name].append(1000 * value)
    per_round = [a + b for a, b in zip(times["extend"], times["propose"], strict=True)]
    levels = budget.limited_to(getattr(drafter, "max_levels", None) or budget.levels).levels
    medians = {name: median(values) for name, values in times.items()}
    return Cost(**medians, round=median(per_round), cache_rows=rows, levels=levels)


def _timed(call: Callable[[], Result], device: torch.device) -> tuple[float, Result]:
    _finish(device)
    start = time.perf_counter()
    result = call()
    _finish(device)
    return time.perf_counter() - start, result


def _finish(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def settings(sizes: list[int], vocab_size: int, reduced: int) -> Iterator[Setting]:
    """Every family at every size, full and reduced vocabulary, with and without an image of 576 tokens; then growth
    with the image, at the smallest size and with the reduced vocabulary."""
    for hidden in sizes:
        for name in DRAFTERS:
            for draft_vocab_size in (None, reduced):
                for image_tokens in (0, 576):
                    yield Setting(name, hidden, vocab_size, draft_vocab_size, image_tokens)
    for name in DRAFTERS:
        for image_tokens in IMAGE_GROWTH:
            if image_tokens != 576:
                yield Setting(name, sizes[0], vocab_size, reduced, image_tokens)


def to_markdown(rows: list[dict]) -> str:
    """Two tables of "prefill + round" in milliseconds: by drafter, size and vocabulary, and by size of the image."""
    by_setting = {tuple(row[name] for name in Setting.__dataclass_fields__): row for row in rows}
    kinds = dict.fromkeys(setting[:4] for setting in by_setting)
    images = sorted({setting[4] for setting in by_setting})
    few = [count for count in images if all((*kind, count) in by_setting for kind in kinds)]
    growth = [count for count in images if count > 0]
    many = [kind for kind in kinds if all((*kind, count) in by_setting for count in growth)]

    def cells(kind: tuple, counts: list[int]) -> list[str]:
        found = [by_setting[(*kind, count)] for count in counts]
        return [f"{row['prefill']:.1f} + {row['round']:.1f}" for row in found]

    tables = [
        markdown_table(
            [
                "drafter",
                "hidden size",
                "draft vocabulary",
                *(f"image of {count}" if count else "text" for count in few),
            ],
            [[kind[0], str(kind[1]), str(kind[3] or kind[2]), *cells(kind, few)] for kind in kinds],
        ),
        markdown_table(
            ["drafter", *map(str, growth)],
            [[kind[0], *cells(kind, growth)] for kind in many],
        ),
    ]
    return "\n".join("\n".join([*lines, ""]) for lines in tables)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    parser.add_argument("--markdown", type=Path, help="where to write the table")
    parser.add_argument("--hidden-size", type=int, nargs="+", default=[576, 2048], choices=SHAPES)
    parser.add_argument("--vocab-size", type=int, default=49152)
    parser.add_argument("--reduced", type=int, default=8000, help="tokens of the reduced draft vocabulary")
    parser.add_argument("--levels", type=int, default=5)
    parser.add_argument("--top-k", type=int, default=8)
    parser.add_argument("--total-tokens", type=int, default=32, help="nodes of the tree, the root included")
    parser.add_argument("--repetitions", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    for path in filter(None, (arguments.json, arguments.markdown)):
        path.parent.mkdir(parents=True, exist_ok=True)  # before minutes of measuring
    torch.set_num_threads(arguments.threads)
    device, dtype = torch.device(arguments.device), fast_dtype()
    budget = DraftBudget(arguments.levels, arguments.top_k, arguments.total_tokens)
    rows = []
    for setting in settings(arguments.hidden_size, arguments.vocab_size, arguments.reduced):
        cost = measure(setting, budget, device, dtype, arguments.repetitions)
        rows.append({**asdict(setting), **asdict(cost)})
        print(json.dumps(rows[-1]), flush=True)
    report = {"machine": machine_facts(dtype, device), "budget": asdict(budget), "rows": rows}
    if arguments.json:
        write_json(arguments.json, report)
    if arguments.markdown:
        write_whole(arguments.markdown, to_markdown(rows))


if __name__ == "__main__":
    main()
