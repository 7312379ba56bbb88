"""What the draft budget learns while it runs: `python -m hf_mmspec.evaluation.budget_learning --json F --plot F.png`.

Four experiments on the embedded target, on a machine that is otherwise quiet: a busy first request and a free next
one, a random drafter, the usual drafter on questions of another domain, and an answer whose domain changes twice.
Measures; `budget_learning_plot.py` draws.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import torch
from transformers import LogitsProcessor, LogitsProcessorList, PreTrainedModel

from hf_mmspec.data import Source, open_source
from hf_mmspec.data.conversation import Conversation, model_inputs, user_message
from hf_mmspec.generation.acceptance_memory import forget_experience
from hf_mmspec.generation.cost_cache import forget_in_process
from hf_mmspec.modeling import Drafter
from hf_mmspec.whole_file import write_json

from .budget_learning_plot import draw
from .contenders import Contender, Run, answer
from .loading import default_drafter, load_drafter, load_target
from .machine import machine_facts
from .metrics import decode_rate
from .prompts import to_target

FREE_QUESTIONS = (
    "Give me three tips for learning to cook.",
    "Why is the sky blue?",
    "Write a short poem about the sea.",
    "What should I pack for a week in the mountains?",
    "Explain to a child how a bicycle stays upright.",
    "Tell me about the history of paper.",
    "How do I become a better listener?",
    "What is the difference between weather and climate?",
    "Describe a perfect breakfast.",
    "Give me an idea for a story about a lighthouse.",
)
# A text that the target would not write, for the middle of an answer.
OTHER_DOMAIN = (
    "Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor incididunt ut labore et dolore "
    "magna aliqua. Ut enim ad minim veniam, quis nostrud exercitation ullamco laboris nisi ut aliquip ex ea commodo "
    "consequat. Duis aute irure dolor in reprehenderit in voluptate velit esse cillum dolore eu fugiat nulla pariatur."
)
EXPERIMENTS = (
    "busy_then_free",
    "random_drafter",
    "random_drafter_sampled",
    "free_questions",
    "free_questions_sampled",
    "own_domain",
    "own_domain_sampled",
    "change_of_domain",
)
_STOCK = Contender("generate")
_BUSY_LOOP = "while True: pass"
Inputs = Mapping[str, torch.Tensor]


class Dictation(LogitsProcessor):
    """Makes the target write `tokens` after a prompt of `prompt_length`, whatever it would prefer."""

    def __init__(self, tokens: Sequence[int], prompt_length: int):
        self._tokens, self._prompt_length = tokens, prompt_length

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        token = self._tokens[input_ids.shape[1] - self._prompt_length]
        dictated = torch.full_like(scores, -torch.inf)
        dictated[:, token] = 0
        return dictated  # type: ignore[return-value]


@contextmanager
def busy_machine(programs: int) -> Iterator[None]:
    """As many other programs as asked for that do nothing but compute."""
    running = [subprocess.Popen([sys.executable, "-c", _BUSY_LOOP]) for _ in range(programs)]
    try:
        yield
    finally:
        for program in running:
            program.kill()
            program.wait()


@contextmanager
def nothing_known() -> Iterator[None]:
    """A process and a disk that know neither costs nor drafters."""
    before = os.environ.get("HF_MMSPEC_CACHE")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HF_MMSPEC_CACHE"] = folder
        _start_anew()
        try:
            yield
        finally:
            _start_anew()
            os.environ.pop("HF_MMSPEC_CACHE")
            if before is not None:
                os.environ["HF_MMSPEC_CACHE"] = before


def _start_anew() -> None:
    forget_in_process()
    forget_experience()


def after_a_busy_request(
    target: PreTrainedModel, drafter: Drafter, prompts: Sequence[Inputs], tokens: int, repetitions: int
) -> dict[str, Any]:
    """Decoding speed of the requests after the first, in tokens per second: where everything was quiet, where the
    first request shared the machine, and in a new process after that."""
    drafting = Contender("drafter", {"assistant_model": drafter})
    speeds: dict[str, list[float]] = {"quiet": [], "after_busy": [], "new_process_after_busy": [], "while_busy": []}
    for _ in range(repetitions):
        with nothing_known():
            answer(target, prompts[0], drafting, tokens)
            speeds["quiet"].append(_speed(target, prompts, drafting, tokens))
        with nothing_known():
            with busy_machine(os.cpu_count() or 1):
                speeds["while_busy"].append(_speed(target, prompts[:1], drafting, tokens))
            speeds["after_busy"].append(_speed(target, prompts, drafting, tokens))
        with nothing_known():
            with busy_machine(os.cpu_count() or 1):
                answer(target, prompts[0], drafting, tokens)
            _start_anew()
            speeds["new_process_after_busy"].append(_speed(target, prompts, drafting, tokens))
    medians = {name: median(values) for name, values in speeds.items()}
    return {
        "tokens_per_second": medians,
        "after_busy_to_quiet": medians["after_busy"] / medians["quiet"],
        "new_process_to_quiet": medians["new_process_after_busy"] / medians["quiet"],
        "samples": speeds,
    }


def against_generate(
    target: PreTrainedModel,
    drafter: Drafter,
    prompts: Sequence[Inputs],
    tokens: int,
    repetitions: int,
    temperature: float = 0.0,
) -> dict[str, Any]:
    """Seconds with the drafter relative to stock `generate`, for each prompt the median over repetitions, per token
    that was answered. What is learnt goes from prompt to prompt, as in a program that sends them."""
    drafting = Contender("drafter", {"assistant_model": drafter})
    ratios: list[list[float]] = [[] for _ in prompts]
    lengths, shares = [], []
    with nothing_known():
        answer(target, prompts[0], _STOCK, 8, temperature)
        answer(
            target, prompts[0], Contender("costs", {"assistant_model": drafter, "draft_mode": "tree"}), 2, temperature
        )
        for repetition in range(repetitions):
            forget_experience()
            for number, inputs in enumerate(prompts):
                order = [drafting, _STOCK] if (repetition + number) % 2 else [_STOCK, drafting]
                runs = {}
                for contender in order:
                    torch.manual_seed(1000 * repetition + number)
                    runs[contender.name] = answer(target, inputs, contender, tokens, temperature)
                ratios[number].append(_per_token(runs["drafter"]) / _per_token(runs["generate"]))
                speculation = runs["drafter"].speculation
                assert speculation is not None
                lengths.append(speculation.acceptance_length)
                shares.append(sum(level > 0 for level in speculation.levels) / max(speculation.rounds, 1))
    by_prompt = [median(values) for values in ratios]
    return {
        "seconds_to_generate": median(by_prompt),
        "by_prompt": by_prompt,
        "first_request": ratios[0],
        "acceptance_length": sum(lengths) / len(lengths),
        "share_of_rounds_that_drafted": sum(shares) / len(shares),
    }


def change_of_domain(target: PreTrainedModel, drafter: Drafter, processor: Any, inputs: Inputs, tokens: int) -> dict:
    """Levels per round of an answer that is the target's own, then dictated from another domain, then its own."""
    stop = target.generation_config.eos_token_id
    stops = stop if isinstance(stop, list) else [stop]
    own = [token for token in answer(target, inputs, _STOCK, tokens).tokens if token not in stops]
    other = processor.tokenizer(OTHER_DOMAIN, add_special_tokens=False)["input_ids"]
    dictated = [*own, *other, *own]
    dictation = Dictation(dictated, inputs["input_ids"].shape[1])
    arguments: dict[str, Any] = {"logits_processor": LogitsProcessorList([dictation])}
    contenders = [Contender("generate", arguments), Contender("drafter", {"assistant_model": drafter, **arguments})]
    stock, drafting = (answer(target, inputs, each, len(dictated)) for each in contenders)
    speculation = drafting.speculation
    assert speculation is not None and drafting.tokens == stock.tokens == dictated
    places, place = [], 1
    for accepted in speculation.accepted:
        places.append(place)
        place += accepted + 1
    return {
        "tokens": len(dictated),
        "other_domain": [len(own), len(own) + len(other)],
        "place": places,
        "levels": speculation.levels,
        "accepted": speculation.accepted,
        "seconds_to_generate": drafting.seconds / stock.seconds,
    }


def random_drafter(drafter: Drafter) -> Drafter:
    """The same architecture, vocabulary and claims about acceptance, with random weights."""
    torch.manual_seed(0)
    stranger = type(drafter)(drafter.config)
    if stranger.d2t is not None and drafter.d2t is not None:
        stranger.d2t.copy_(drafter.d2t)
    return stranger.to(device=drafter.device, dtype=drafter.dtype).eval()


def _speed(target: PreTrainedModel, prompts: Sequence[Inputs], contender: Contender, tokens: int) -> float:
    return decode_rate([answer(target, inputs, contender, tokens) for inputs in prompts])


def _per_token(run: Run) -> float:
    return run.seconds / len(run.tokens)


def _inputs(target: PreTrainedModel, processor: Any, conversations: Sequence[Conversation]) -> list[Inputs]:
    return [to_target(model_inputs(processor, [each]), target) for each in conversations]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=10, help="prompts for the random drafter")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--max-new-tokens", type=int, default=160)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--experiment", action="append", choices=EXPERIMENTS, help="repeat for several")
    parser.add_argument("--json", type=Path, help="where to write the numbers; experiments in it stay as they are")
    parser.add_argument("--plot", type=Path, help="where to draw the answer whose domain changes, as PNG")
    arguments = parser.parse_args()
    names = arguments.experiment or EXPERIMENTS
    if arguments.plot and "change_of_domain" not in names:
        parser.error("--plot draws change_of_domain: add --experiment change_of_domain.")
    for path in filter(None, (arguments.json, arguments.plot)):
        path.parent.mkdir(parents=True, exist_ok=True)  # before minutes of measuring
    torch.set_num_threads(arguments.threads)
    target, processor = load_target()
    drafter = load_drafter(default_drafter(), target)
    file: Path | None = arguments.json
    report = json.loads(file.read_text()) if file and file.exists() else {}
    wanted = [name for name in names if name not in report]
    counts = arguments.prompts, arguments.max_new_tokens, arguments.repetitions
    for name, numbers in run(wanted, target, processor, drafter, *counts):
        report[name] = {"machine": machine_facts(target.dtype, target.device), **numbers}
        print(name, json.dumps(numbers), flush=True)
        if file:
            write_json(file, report)
    if arguments.plot:
        draw(report["change_of_domain"], arguments.plot)


def run(
    names: Sequence[str],
    target: PreTrainedModel,
    processor: Any,
    drafter: Drafter,
    prompts: int,
    tokens: int,
    repetitions: int,
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The experiments of `names` one after the other, each with its numbers."""
    own = _inputs(target, processor, list(open_source(Source("embedded", split="val", limit=prompts))))
    free = _inputs(target, processor, [Conversation([user_message(text)]) for text in FREE_QUESTIONS[:prompts]])
    stranger = random_drafter(drafter)
    against = {"random_drafter": (stranger, own), "free_questions": (drafter, free), "own_domain": (drafter, own)}
    for name in names:
        if name == "busy_then_free":
            yield name, after_a_busy_request(target, drafter, own[:3], tokens, repetitions)
        elif name == "change_of_domain":
            yield name, change_of_domain(target, drafter, processor, own[0], tokens)
        else:
            kind, temperature = name.removesuffix("_sampled"), float(name.endswith("_sampled"))
            yield name, against_generate(target, *against[kind], tokens, repetitions, temperature)


if __name__ == "__main__":
    main()
