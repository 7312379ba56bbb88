"""The body of a card, in Markdown: use, measurements, training, limits, citation.

Words and layout; every number comes from `card_facts.py`, and every name passes through `inert_text.py`.
"""

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hf_mmspec.evaluation.markdown import markdown_table

from .card_bench import Measured
from .card_facts import CardFacts
from .card_metadata import METRICS, rows_of
from .card_use import use, without_the_package
from .inert_text import fenced, inert, one_line
from .names import EMBEDDED_TARGET, is_hub_id
from .papers import PAPERS

# Further numbers over all tasks, by the word for them.
OVERALL = {
    "verify_growth": "v",
    "loop_efficiency": "loop efficiency",
    "break_even_acceptance_length": "break-even L",
    "peak_memory_ratio": "peak memory ratio",
}


def card_text(facts: CardFacts) -> str:
    """The body below the metadata."""
    paper = PAPERS[facts.family]
    parts = [
        f"# {inert(facts.name)}",
        f"A drafter ({paper.method}, [arXiv {paper.arxiv}]({paper.link})) for {_target(facts)}: it drafts tokens that "
        "the target checks in one forward. The text is the target's own, only faster.",
        fenced("\n".join(use(facts)), "python"),
        *without_the_package(facts),
        "## Measured",
        *(_measured(facts) if facts.measured else _not_measured(facts)),
        *_held_out(facts),
        "## Made of",
        *_made_of(facts),
        "## Limits",
        "\n".join(f"* {line}" for line in _limits(facts)),
        "## Citation",
        fenced(paper.bibtex(), "bibtex"),
    ]
    return "\n\n".join(parts) + "\n"


def picture_name(number: int) -> str:
    """File of the picture of the bench with this number, from 1."""
    return "speed.png" if number == 1 else f"speed-{number}.png"


def _target(facts: CardFacts) -> str:
    form = facts.training.get("target_quantization")
    return _named_target(facts) + (f" in {inert(form)}" if form else "")


def _named_target(facts: CardFacts) -> str:
    target = facts.target
    if target is None:
        return f"a target of type {inert(facts.config.target_model_type or 'unknown')}"
    if target == EMBEDDED_TARGET:
        return "the embedded default target of hf\\_mmspec"
    return f"[{inert(target)}](https://huggingface.co/{target})" if is_hub_id(target) else inert(target)


def _measured(facts: CardFacts) -> Iterator[str]:
    for number, each in enumerate(facts.measured, 1):
        yield _circumstances(each)
        yield "\n".join(markdown_table(*_numbers(each)))
        yield f"![Speed-ups by task, drawn from the same numbers]({picture_name(number)})"
        if each.others:
            yield "In the same run, over all tasks:"
            yield "\n".join(markdown_table(*_others(each)))
        if each.machine.get("command"):
            yield fenced(one_line(each.machine["command"]).replace("__main__.py ", "mmspec ", 1), "")
        yield "\n".join(_definitions(each))


def _circumstances(measured: Measured) -> str:
    """Data, machine and versions in two sentences, as far as they are known."""
    machine, settings = measured.machine, measured.settings
    versions = machine.get("versions", {})
    known = [
        machine.get("accelerator") or machine.get("cpu"),
        machine.get("threads") and f"{machine['threads']} threads",
        machine.get("dtype"),
        machine.get("quantization") and f"target in {machine['quantization']}",
        *(f"{package} {versions[package]}" for package in ("torch", "transformers") if versions.get(package)),
        machine.get("git_revision") and f"revision {machine['git_revision']}",
    ]
    often = "once" if settings.get("repetitions") == 1 else f"{settings.get('repetitions')} times"
    many = settings.get("samples") and f" ({settings['samples']} prompts a task, {often})"
    data = f"{', '.join(measured.data)}{many or ''}"
    batch = f"Batch {settings.get('batch', 1)}."
    return f"Prompts: {inert(data)}. Machine: {inert(', '.join(part for part in known if part))}. {batch}"


def _numbers(measured: Measured) -> tuple[list[str], list[list[str]]]:
    rows = [
        [
            inert(name),
            f"{temperature:g}",
            _plain(numbers.get("n"), "d"),
            _plain(numbers.get("acceptance_length")),
            _times(numbers.get("decode_speedup")),
            _times(numbers.get("end_to_end_speedup")),
            _identical(numbers),
        ]
        for name, temperature, numbers in rows_of(measured)
    ]
    return ["task", "temperature", "prompts", "L", "decode", "end to end", "identical"], rows


def _others(measured: Measured) -> tuple[list[str], list[list[str]]]:
    rows = [
        [
            inert(name),
            _plain(numbers.get("acceptance_length")),
            _times(numbers.get("decode_speedup")),
            _times(numbers.get("end_to_end_speedup")),
        ]
        for name, numbers in measured.others
    ]
    return ["contender", "L", "decode", "end to end"], rows


def _identical(numbers: Mapping[str, Any]) -> str:
    if numbers.get("identical") is None:
        return "sampled"
    ties = f", {numbers['near_ties']} up to a tie" if numbers.get("near_ties") else ""
    counts = inert(f"{numbers.get('identical_samples')} of {numbers.get('n')}{ties}")
    return counts + ("" if numbers["identical"] else ", **failed**")


def _definitions(measured: Measured) -> Iterator[str]:
    """Words with the report's own definitions, which have changed over versions, and the numbers of no table."""
    for word, label in {**METRICS, "identical": "identical", **OVERALL}.items():
        numbers = [each.get(word) for _, each in measured.overall] if word in OVERALL else []
        known = ", ".join(f"{number:.2f}" for number in numbers if number is not None)
        if word in measured.definitions and (known or word not in OVERALL):
            yield f"* **{label}**{f' {known}' if known else ''}: {inert(measured.definitions[word])}"


def _not_measured(facts: CardFacts) -> list[str]:
    drafter = shlex.quote(one_line(facts.name))
    embedded = facts.target == EMBEDDED_TARGET
    model = "" if embedded else f" --model {shlex.quote(one_line(facts.target or 'TARGET'))}"
    data = "" if embedded else " --data DATA"
    commands = [
        f"mmspec bench --drafter {drafter}{model}{data} --json outputs/bench.json",
        f"mmspec card {drafter} --bench outputs/bench.json",
    ]
    return [
        "**No speed was measured yet.** These commands do so, and write the numbers here:",
        fenced("\n".join(commands)),
    ]


def _held_out(facts: CardFacts) -> Iterator[str]:
    """What the training measured; nothing where there was none."""
    results = facts.training.get("results")
    if not results:
        return
    held_out = facts.training.get("held_out", {})
    prompts = f"{held_out['prompts']} " if held_out.get("prompts") else ""
    yield "## L on held-out prompts"
    yield (
        "L is the number of tokens emitted per target forward, the target's own included (1.0 = no speculation), "
        f"greedy, on {prompts}held-out prompts that chose the checkpoint; {_budget(held_out.get('budget', {}))}."
    )
    lengths = [[inert(task.partition("/")[2] or "all"), _plain(value)] for task, value in results.items()]
    yield "\n".join(markdown_table(["task", "L"], lengths))
    if facts.config.acceptance_by_depth:
        shares = ", ".join(f"{share:.2f}" for share in facts.config.acceptance_by_depth)
        yield (
            "Share of rounds in which the first choice is right, of those that came so deep (depth 1, 2, ...): "
            f"{shares}.{_chain(facts)}"
        )


def _chain(facts: CardFacts) -> str:
    depths, accepted = len(facts.config.acceptance_by_depth or ()), facts.training.get("chain")
    return f" A greedy chain of {depths} drafts has {accepted:.2f} accepted on average." if accepted else ""


def _budget(budget: Mapping[str, Any]) -> str:
    if not budget:
        return "the usual draft budget"
    return "a tree of depth {draft_depth}, {draft_top_k} children, {draft_total_tokens} nodes".format(**budget)


def _made_of(facts: CardFacts) -> Iterator[str]:
    config, training = facts.config, facts.training
    size = f"{facts.parameters / 1e6:.1f} M parameters, " if facts.parameters else ""
    vocabulary = f"{config.draft_vocab_size} draft tokens" if config.draft_vocab_size else "all of the target's tokens"
    layers = "one decoder layer" if config.num_hidden_layers == 1 else f"{config.num_hidden_layers} decoder layers"
    yield f"{size}{vocabulary}, {layers} of width {config.hidden_size}."
    if facts.conversion:
        yield _converted(facts.conversion)
    if not training:
        return
    yield _data(training, facts.name)
    if stages := training.get("recipe", {}).get("stages"):
        yield "\n".join(markdown_table(*_stages(stages)))
    if training.get("method"):
        yield inert(training["method"])
    yield "What made it (all of it is in `training.json`):"
    yield fenced(json.dumps(training.get("provenance", {}), indent=1), "json")


def _converted(conversion: Mapping[str, Any]) -> str:
    source, commit = conversion.get("source", "a published checkpoint"), conversion.get("commit")
    named = source if is_hub_id(source) else source.rstrip("/").rpartition("/")[2]
    return f"Converted from {inert(named)}{f' ({inert(commit)})' if commit else ''}, its weights untouched."


def _data(training: Mapping[str, Any], name: str) -> str:
    counts: dict[str, Any] = {}  # one source may have been answered in several parts
    for each in training["data"]:
        source, count = each.get("source") or each["name"], each["answers"]
        before = counts.get(source)
        counts[source] = before + count if isinstance(before, int) and isinstance(count, int) else count
    named = [f"{inert(source)} ({inert(count)} answers)" for source, count in counts.items()]
    records = (
        f"Trained on {inert(training['records'])} answers of the target itself" if "records" in training else "Trained"
    )
    outside = training.get("outside")
    missed = f" {outside:.2%} of their tokens are outside the draft vocabulary and count as misses." if outside else ""
    start = training.get("start")
    earlier = "an earlier drafter of this name" if start == name else inert(start)
    begun = f" Its first weights are those of {earlier}, where they fit." if start else ""
    return f"{records}{_left_out(training, counts)}, from {', '.join(named)}.{begun}{missed}"


def _left_out(training: Mapping[str, Any], counts: Mapping[str, Any]) -> str:
    """Where the held-out prompts are of the same answers."""
    held_out, whole = training.get("held_out", {}).get("prompts"), [n for n in counts.values() if isinstance(n, int)]
    return (
        f" ({held_out} more were held out)" if held_out and sum(whole) == training.get("records", 0) + held_out else ""
    )


def _stages(stages: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    head = ["stage", "records", "epochs", "learning rate", "batch", "passes", "loss"]
    fields = ("name", "records", "epochs", "learning_rate", "batch_size", "unroll")
    rows = []
    for stage in stages:
        weights = {**stage.get("loss", {}), "kv": stage.get("kv_loss_weight", 0)}
        loss = ", ".join(f"{weight:g} {name}" for name, weight in weights.items() if weight)
        rows.append([*(inert(stage.get(name, "")) for name in fields), inert(loss)])
    return head, rows


def _limits(facts: CardFacts) -> Iterator[str]:
    config = facts.config
    yield (
        f"Only for the target that it was made for (type {inert(config.target_model_type or 'not recorded')}, hidden "
        f"size {config.target_width}, {config.real_vocab_size or config.vocab_size} tokens). `mmspec check` says "
        "whether a target fits. With fine-tuned weights the text stays exact, but fewer drafts are accepted."
    )
    if form := facts.training.get("target_quantization"):
        yield (
            f"It learned from the target in {inert(form)}. With its weights in another form the text is exact "
            "as well, but fewer drafts may be accepted."
        )
    yield (
        f"It was made for positions up to {config.max_position_embeddings}; text beyond is exact as well, but may be "
        "drafted badly."
    )
    yield "Prompts that are unlike those above have another L. No beam search."
    yield "In half precision answers may part from undrafted ones at a tie of two tokens; in float32 they do not."
    if facts.measured:
        yield "Speed-ups are those of the machine that is named, not of yours: `mmspec bench` measures there."


def _plain(value: float | None, form: str = ".2f") -> str:
    return "" if value is None else format(value, form)


def _times(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}x"
