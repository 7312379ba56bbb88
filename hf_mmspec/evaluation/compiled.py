"""Whether compiling pays on this machine: `python -m hf_mmspec.evaluation.compiled --json FILE`.

Answers the embedded target's test prompts stock, compiled, with a drafter, with a compiled drafter and with both
compiled, in turns on the same prompts; every contender answers all prompts once before, which is where it compiles.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch._dynamo.utils import counters
from transformers import CompileConfig, PreTrainedModel

from hf_mmspec.data import Source, model_inputs, open_source
from hf_mmspec.modeling import Drafter
from hf_mmspec.whole_file import write_json

from .contenders import STOCK, Contender, Run, answer
from .loading import default_drafter, load_drafter, load_target
from .machine import machine_facts
from .metrics import decode_rate
from .prompts import to_target

NAMES = ("stock, compiled", "drafter", "compiled drafter", "drafter, compiled target", "both compiled")


@dataclass
class Measured:
    """What one contender did: `first_seconds` and new `graphs` of the unmeasured answers, compilation included (what
    an earlier contender left is not compiled again), and the measured answers, prompt by prompt."""

    first_seconds: float = 0.0
    graphs: int = 0
    runs: list[Run] = field(default_factory=list)

    def summary(self, stock: "Measured") -> dict[str, Any]:
        """Medians over the prompts: decode-only tokens/s, its ratio to stock on the same prompt, L, and how many
        answers are stock's."""
        speeds, stock_speeds = ([decode_rate([run]) for run in m.runs] for m in (self, stock))
        lengths = [run.speculation.acceptance_length for run in self.runs if run.speculation is not None]
        return {
            "decode_tokens_per_second": median(speeds),
            "decode_speedup": median(mine / other for mine, other in zip(speeds, stock_speeds, strict=True)),
            "acceptance_length": median(lengths) if lengths else None,
            "identical": sum(a.tokens == b.tokens for a, b in zip(self.runs, stock.runs, strict=True)),
            "prompts": len(self.runs),
            "first_seconds": self.first_seconds,
            "graphs": self.graphs,
        }


def contenders(
    drafter: Drafter, compiled_drafter: Drafter, options: dict[str, Any], names: Sequence[str] = ()
) -> list[Contender]:
    """Stock first, then those of `names`, all without any. The target is compiled as `generate` does it: by a static
    cache and a `compile_config` with these `options` of `torch.compile`."""
    config = CompileConfig(**options)
    config._compile_all_devices = True
    compiled = {"cache_implementation": "static", "compile_config": config}
    found = [
        Contender(STOCK),
        Contender("stock, compiled", compiled),
        Contender("drafter", {"assistant_model": drafter}),
        Contender("compiled drafter", {"assistant_model": compiled_drafter}),
        Contender("drafter, compiled target", {"assistant_model": drafter, **compiled}),
        Contender("both compiled", {"assistant_model": compiled_drafter, **compiled}),
    ]
    return [each for each in found if each.name in (STOCK, *(names or NAMES))]


def measure(
    target: PreTrainedModel, asked: list[Contender], prompts: list[dict[str, torch.Tensor]], tokens: int
) -> dict[str, Measured]:
    """All contenders on all prompts, taking turns, greedy; who comes first changes from prompt to prompt."""
    measured = {contender.name: Measured() for contender in asked}
    for contender in asked:
        before = counters["stats"]["unique_graphs"]
        for inputs in prompts:
            measured[contender.name].first_seconds += answer(target, inputs, contender, tokens).seconds
        measured[contender.name].graphs = counters["stats"]["unique_graphs"] - before
        first = measured[contender.name].first_seconds
        print(f"{contender.name}: first answers {first:.0f} s, {measured[contender.name].graphs} graphs", flush=True)
    for number, inputs in enumerate(prompts):
        shift = number % len(asked)
        for contender in (*asked[shift:], *asked[:shift]):
            measured[contender.name].runs.append(answer(target, inputs, contender, tokens))
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=6, help="test prompts")
    parser.add_argument("--max-new-tokens", type=int, default=160)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--backend", default="inductor", help="of torch.compile")
    parser.add_argument("--mode", default="default", help='of torch.compile: "reduce-overhead" has CUDA graphs')
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--contender", action="append", choices=NAMES, help="repeat for several; by default all")
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    arguments = parser.parse_args()
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)  # before minutes of measuring
    torch.set_num_threads(arguments.threads)
    target, processor = load_target(None, arguments.dtype)
    drafter, compiled_drafter = (load_drafter(default_drafter(), target) for _ in range(2))
    options = {"backend": arguments.backend, "mode": arguments.mode if arguments.backend == "inductor" else None}
    compiled_drafter.compile(**options)
    prompts = [
        to_target(model_inputs(processor, [conversation]), target)
        for conversation in open_source(Source("embedded", split="test", limit=arguments.samples))
    ]
    asked = contenders(drafter, compiled_drafter, options, arguments.contender or ())
    measured = measure(target, asked, prompts, arguments.max_new_tokens)
    report: dict[str, Any] = {"machine": machine_facts(target.dtype, target.device), "torch.compile": options}
    report["contenders"] = {name: each.summary(measured[STOCK]) for name, each in measured.items()}
    print(json.dumps(report["contenders"], indent=1), flush=True)
    if arguments.json:
        write_json(arguments.json, report)


if __name__ == "__main__":
    main()
