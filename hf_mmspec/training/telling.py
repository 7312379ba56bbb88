"""What a training says about itself: lines for whoever waits for it, and the facts about its data for a card.

Decides nothing.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from hf_mmspec.hub.names import public_name
from hf_mmspec.quantise import quantisation_of

from .answers.store import AnswerSet
from .features.source import RecordSource
from .learning.target_parts import TargetParts


def describe(training: RecordSource, held_out: RecordSource, parts: TargetParts, say: Callable[[str], None]) -> float:
    """Say what is trained on; returns the share of answer tokens outside of the draft vocabulary."""
    for reason, count in training.dropped.most_common():
        say(f"{count} answers are left out: {reason}")
    said = inside = supervised = 0
    for each in training.said():
        known = parts.knows(each)
        said, inside = said + len(each), inside + int(known.sum())
        supervised += int(known[1:].sum())  # the prefill gives the first
    outside = 1 - inside / said
    total = sum(length for length, _ in training.sizes())
    where = (
        f"from disk, {training.bytes_per_token} bytes each" if training.is_stored else "read on the fly, none stored"
    )
    share = f"{supervised} tokens of {total} supervised ({supervised / total:.0%})"
    say(f"{len(training)} answers, {share}; states {where}")
    say(f"{len(held_out)} answers held out; {outside:.2%} of the tokens are outside the draft vocabulary")
    return outside


def other_names(target: str, answers: Sequence[AnswerSet]) -> Iterator[str]:
    """A line for each set whose target was called otherwise: embeddings and head look alike (`insist_on_target`), but
    those of a finetuned model may too."""
    for each in answers:
        theirs = each.manifest["model"]
        if public_name(theirs) != public_name(target):
            yield f"{each.folder.name}: answers of {theirs}, now read by {target}: are these the same weights?"


def other_weights(model: Any, answers: Sequence[AnswerSet]) -> Iterator[str]:
    """A line for each set whose answers the same target gave with its weights in another form."""
    own = quantisation_of(model)
    for each in answers:
        theirs = each.manifest.get("target_quantization")
        if theirs != own:
            yield (
                f"{each.folder.name}: answers of the target {_form(theirs)}, read by it {_form(own)}: distil with "
                "this one to learn from its own words"
            )


def _form(quantisation: str | None) -> str:
    return "unquantised" if quantisation is None else f"in {quantisation}"


def data_facts(answers: AnswerSet) -> dict[str, Any]:
    """What a card may say about the data: no paths of this machine."""
    told = ("temperature", "max_new_tokens", "target_quantization")
    kept = {key: answers.manifest[key] for key in told if key in answers.manifest}
    source = answers.manifest.get("data")
    return {
        "name": answers.folder.name,
        "source": None if source is None else public_name(source.partition("=")[0]),
        "fingerprint": answers.fingerprint,
        "answers": len(answers.rows),
        **kept,
    }
