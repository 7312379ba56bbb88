"""`python -m hf_mmspec.evaluation.quantised`: one target in float32, bfloat16, 8 and 4 bits, each with and without a
drafter: weights, peak memory, cost of n tokens, decoding speed, and whether the tokens are those of the same target.

Measures with the bench's own parts, one form of the weights after the other; decides nothing.
"""

import argparse
import gc
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hf_mmspec.data import Source
from hf_mmspec.generation.costs import measure_verify
from hf_mmspec.quantise import quantisation_of
from hf_mmspec.whole_file import write_json, write_whole

from . import loading
from .bench import Settings, run_bench
from .contenders import STOCK, Contender
from .drafters import Entry
from .machine import machine_facts
from .markdown import machine_line, markdown_table
from .memory import METHOD, MeasurementError, Question, peak_memory
from .prompts import EMBEDDED, collect_prompts, open_data
from .rows import make_row
from .task_options import parse_together, parse_token_limits

SIZES = (1, 8, 16, 32)
_VERIFY_SECONDS = 20.0
_MEMORY_TOKENS, _NEW_TOKENS = 128, 160
_DRAFTER = "drafter"
_KEPT = (
    "acceptance_length",
    "decode_speedup",
    "decode_speedup_interval",
    "end_to_end_speedup",
    "decode_tokens_per_second",
    "stock_decode_tokens_per_second",
    "verify_growth",
    "loop_efficiency",
    "identical",
    "identical_samples",
    "near_ties",
    "failures",
    "largest_gap",
    "n",
)

_BY_TASK = ("acceptance_length", "decode_speedup", "slowest_prompt", "n")


@dataclass(frozen=True)
class Form:
    """A form of the weights: dtype and packing as `load_target` takes them."""

    dtype: str
    quantize: str | None = None


FORMS = {
    "fp32": Form("float32"),
    "bf16": Form("bfloat16"),
    "8-bit": Form("auto", "int8"),
    "4-bit": Form("auto", "nf4"),
}


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Args:
        model: as `load_target` takes it.
        drafters: a folder or repository for each form.
        settings: prompts, repetitions, lengths.
        memory: whether peaks are measured, in processes of their own.
    """

    model: str | None
    drafters: dict[str, str]
    settings: Settings
    memory: bool = True


def measure(plan: Plan) -> Iterator[dict[str, Any]]:
    """A row for each form in `plan.drafters`."""
    for name, drafter in plan.drafters.items():
        yield {"form": name, **_speed(plan, FORMS[name], drafter), **_peaks(plan, FORMS[name], drafter)}
        gc.collect()


def _speed(plan: Plan, form: Form, source: str) -> dict[str, Any]:
    """Costs and bench of one form."""
    target, processor = loading.load_target(plan.model, form.dtype, form.quantize)
    drafter = loading.load_drafter(source, target)
    drafter.bind(target)
    seconds = measure_verify(target, SIZES, _VERIFY_SECONDS)
    sources = open_data(plan.settings.data, plan.settings.samples, Source(plan.settings.data[0], plan.settings.split))
    prompts = collect_prompts(target, processor, sources, plan.settings.samples, plan.settings.tasks).by_task
    plan.settings.check_tasks(prompts)
    contenders = [Contender(STOCK), Contender(_DRAFTER, {"assistant_model": drafter})]
    results = run_bench(target, processor, contenders, prompts, plan.settings)
    row = make_row(results, _DRAFTER, list(prompts), None)
    groups = [(task,) for task in prompts] + [*plan.settings.together]
    return {
        "weights": quantisation_of(target),
        "dtype": str(target.dtype).removeprefix("torch."),
        "drafter": Path(source).name,
        "weight_bytes": weight_bytes(target),
        "drafter_weight_bytes": weight_bytes(drafter),
        "verify_ms": {str(size): 1000 * seconds[size] for size in seconds},
        "growth": {str(size): seconds[size] / seconds[1] for size in seconds},
        **{key: row[key] for key in _KEPT if key in row},
        "by_task": {
            ", ".join(group): {key: of_group[key] for key in _BY_TASK}
            for group, of_group in ((group, make_row(results, _DRAFTER, group, None)) for group in groups)
        },
    }


def _peaks(plan: Plan, form: Form, source: str) -> dict[str, int | None]:
    """Peak bytes of answering, alone and with the drafter; None where they could not be measured."""
    question = Question(plan.model, form.dtype, _MEMORY_TOKENS, Source(plan.settings.data[0]), form.quantize)
    peaks: dict[str, int | None] = {"peak_bytes": None, "peak_bytes_with_drafter": None}
    for key, entry in zip(peaks, (None, Entry(_DRAFTER, source)) if plan.memory else (), strict=False):
        try:
            peaks[key] = peak_memory(question, entry)
        except MeasurementError as error:
            print(error, flush=True)
    return peaks


def weight_bytes(model: nn.Module) -> int:
    """Bytes of parameters and buffers, tied ones once, with the scales that packed weights carry along."""
    tensors = {id(each): each for each in [*model.parameters(), *model.buffers()]}
    return sum(_bytes(each) for each in tensors.values())


def _bytes(tensor: torch.Tensor) -> int:
    inside = getattr(tensor, "__tensor_flatten__", None)  # a subclass around the tensors that it is made of
    if inside is not None:
        return sum(_bytes(getattr(tensor, name)) for name in inside()[0])
    return tensor.numel() * tensor.element_size() + sum(map(_bytes, _scales(tensor)))


def _scales(weight: Any) -> list[torch.Tensor]:
    """What bitsandbytes keeps beside a packed weight: blockwise (4-bit) or by row (8-bit)."""
    state = getattr(weight, "quant_state", None)
    nested = getattr(state, "state2", None)
    found = [getattr(state, "absmax", None), getattr(nested, "absmax", None), getattr(weight, "SCB", None)]
    return [each for each in found if each is not None]


def to_markdown(report: dict[str, Any]) -> str:
    """Machine, memory, costs, speed and identity, a line for each form."""
    head = ["weights", "target", "drafter", "peak", "with drafter"]
    head += [f"{size} tokens" for size in SIZES]
    head += ["stock", "with drafter", "speed-up", "L", "same tokens"]
    return "\n".join(
        [
            machine_line(report["machine"]),
            "",
            f"Command: `{report['machine']['command']}`",
            "",
            *markdown_table(head, [_cells(row) for row in report["rows"]]),
            "",
            "MB of weights and at the peak of one answer; milliseconds of a forward over n tokens and v(n); tokens "
            "per second while decoding; answers with the same tokens as the same target without a drafter.",
            "",
            *_task_table(report["rows"]),
            "",
            "Speed-up while decoding, and L.",
            "",
        ]
    )


def _task_table(rows: Sequence[dict[str, Any]]) -> list[str]:
    groups = list(rows[0]["by_task"])
    found = [[row["form"], *(row["by_task"][group] for group in groups)] for row in rows]
    texts = [
        [form, *(f"{each['decode_speedup']:.2f}x ({each['acceptance_length']:.2f})" for each in cells)]
        for form, *cells in found
    ]
    return markdown_table(["weights", *groups], texts)


def _cost(row: dict[str, Any], size: str) -> str:
    """Milliseconds and v; nothing where a slow target had no time to measure it."""
    return f"{row['verify_ms'][size]:.0f} ({row['growth'][size]:.2f})" if size in row["growth"] else ""


def _cells(row: dict[str, Any]) -> list[str]:
    megabytes = ("weight_bytes", "drafter_weight_bytes", "peak_bytes", "peak_bytes_with_drafter")
    ties = f", {row['near_ties']} at a near tie" if row["near_ties"] else ""
    failures = f", **{row['failures']} failed**" if row["failures"] else ""
    return [
        f"{row['form']} ({row['weights'] or row['dtype']})",
        *("" if row[key] is None else f"{row[key] / 2**20:.0f}" for key in megabytes),
        *(_cost(row, str(size)) for size in SIZES),
        f"{row['stock_decode_tokens_per_second']:.1f}",
        f"{row['decode_tokens_per_second']:.1f}",
        f"{row['decode_speedup']:.2f}x",
        f"{row['acceptance_length']:.2f}",
        f"{row['identical_samples']} of {row['n']}{ties}{failures}",
    ]


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command's options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    parser.add_argument("--markdown", type=Path, help="where to write the table")
    parser.add_argument("--model", help="target: folder or Hub repository; by default the embedded one")
    parser.add_argument(
        "--drafter",
        action="append",
        default=[],
        help="folder or repository for all forms, or FORM=FOLDER for one of them; by default the embedded one's",
    )
    parser.add_argument("--form", action="append", choices=FORMS, help="repeat for several; by default all")
    parser.add_argument("--data", default=EMBEDDED, help="where prompts come from, as `mmspec bench --data` takes it")
    parser.add_argument("--samples", type=int, default=12, help="prompts of each task")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--max-new-tokens", default="160", help='of an answer; by task: "160,chat=64"')
    parser.add_argument(
        "--together", action="append", default=[], help="tasks with a comma between, to be told together"
    )
    parser.add_argument("--no-memory", action="store_true", help="measure no peaks")
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args(arguments)


def drafters_of(asked: Sequence[str], forms: Sequence[str], model: str | None) -> dict[str, str]:
    """The drafter of each form.

    Raises:
        ValueError: a form has none, since the target is not the embedded one.
    """
    parted = [each.partition("=") for each in asked]
    by_form = {form: source for form, equals, source in parted if equals and form in FORMS}
    general = ["".join(each) for each in parted if not (each[1] and each[0] in FORMS)]
    if model is not None and not general and set(forms) - set(by_form):
        raise ValueError("a drafter is made for one target: give --drafter together with --model")
    rest = general[-1] if general else None
    return {form: by_form.get(form) or rest or loading.default_drafter() for form in forms}


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    for path in filter(None, (options.json, options.markdown)):
        path.parent.mkdir(parents=True, exist_ok=True)  # before minutes of measuring
    torch.set_num_threads(options.threads)
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # a warning at every 8-bit layer takes time
    limit, by_task = parse_token_limits(options.max_new_tokens)
    settings = Settings(
        data=(options.data,),
        samples=options.samples,
        repetitions=options.repetitions,
        max_new_tokens=limit or _NEW_TOKENS,
        task_max_new_tokens=by_task,
        together=tuple(map(parse_together, options.together)),
    )
    drafters = drafters_of(options.drafter, options.form or list(FORMS), options.model)
    rows = []
    for row in measure(Plan(options.model, drafters, settings, not options.no_memory)):
        rows.append(row)
        print(json.dumps(row), flush=True)
    machine = {**machine_facts(), "dtype": "several forms", "memory_method": METHOD}
    report = {"machine": machine, "rows": rows}
    if options.json:
        write_json(options.json, report)
    if options.markdown:
        write_whole(options.markdown, to_markdown(report))


if __name__ == "__main__":
    main()
