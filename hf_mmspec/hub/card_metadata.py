"""The YAML of a card: what the Hub files a drafter under, and its measured numbers as a model-index.

Knows the Hub's fields; writes nothing.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from .card_bench import Measured
from .card_facts import CardFacts
from .inert_text import one_line
from .names import EMBEDDED_TARGET, is_hub_id

TAGS = ("speculative-decoding", "draft-model", "hf_mmspec")
# Of drafters that learned from the embedded target's answers to the embedded prompts, which are all ours. Of others
# only their makers know: targets and data have licenses of their own.
OURS = "apache-2.0"
ALL_TASKS = "all tasks"
METRICS = {
    "acceptance_length": "L, tokens per target forward",
    "decode_speedup": "decode speed-up",
    "end_to_end_speedup": "end-to-end speed-up",
}


def card_metadata(facts: CardFacts) -> ModelCardData:
    """The metadata of a drafter."""
    target = facts.target
    sources = [source for each in facts.training.get("data", []) if (source := each.get("source"))]
    results = [result for each in facts.measured for result in _results(each, pipeline_tag(facts))]
    known: dict[str, Any] = {"base_model_relation": "adapter"} if is_hub_id(target) else {}
    return ModelCardData(
        base_model=target if is_hub_id(target) else None,
        library_name="transformers",
        pipeline_tag=pipeline_tag(facts),
        tags=[*TAGS[:2], facts.family, *TAGS[2:]],
        datasets=list(dict.fromkeys(source for source in sources if is_hub_id(source))) or None,
        license=facts.training.get("license") or (OURS if _is_ours(facts) else None),
        model_name=one_line(facts.name) if results else None,
        eval_results=results or None,
        **known,
    )


def pipeline_tag(facts: CardFacts) -> str:
    """The Hub's task of the target."""
    return "image-text-to-text" if facts.sees_pictures else "text-generation"


def _is_ours(facts: CardFacts) -> bool:
    sources = [str(each.get("source")) for each in facts.training.get("data", [])]
    embedded = all(source.partition(":")[0] == "embedded" for source in sources)
    return bool(sources) and embedded and facts.training.get("target") == EMBEDDED_TARGET


def _results(measured: Measured, task: str) -> Iterator[EvalResult]:
    """All tasks together first, then each."""
    data, split = ", ".join(map(one_line, measured.data)), measured.settings.get("split")
    for name, temperature, numbers in rows_of(measured):
        for metric, label in METRICS.items():
            if numbers.get(metric) is None:
                continue
            yield EvalResult(
                task_type=task,
                dataset_type=data,
                dataset_name=f"{data}: {name}",
                dataset_config=f"{name}, temperature {temperature:g}",
                dataset_split=split,
                metric_type=metric,
                metric_name=label,
                metric_value=round(numbers[metric], 4),
                metric_args=_circumstances(measured),
            )


def rows_of(measured: Measured) -> Iterator[tuple[str, float, Mapping[str, Any]]]:
    """Task, temperature and numbers: first all tasks together, where there are several, then each."""
    if len({row.get("task") for row in measured.rows}) > 1:
        yield from ((ALL_TASKS, temperature, numbers) for temperature, numbers in measured.overall)
    for row in measured.rows:
        yield one_line(row.get("task", "all")), float(row.get("temperature") or 0), row


def _circumstances(measured: Measured) -> dict[str, Any]:
    """What the numbers cannot be read without. The command stands in the text, once."""
    machine = measured.machine
    known = {
        "machine": machine.get("accelerator") or machine.get("cpu"),
        "threads": machine.get("threads"),
        "dtype": machine.get("dtype"),
    }
    return {key: one_line(value) if isinstance(value, str) else value for key, value in known.items() if value}
