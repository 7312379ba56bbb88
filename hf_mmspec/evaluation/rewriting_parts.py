"""A rewrite's tokens and their time by part: names and choices, reasoning, prompt.

Arithmetic on one answer; runs nothing.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hf_mmspec.rewriting.instruction import FIELDS
from hf_mmspec.rewriting.vocabulary import StringState, Vocabulary

from .contenders import Run

KEYS, REASONING, PROMPT = "keys", "reasoning", "prompt"
_FREE = {"reasoning": REASONING, "rewritten_prompt": PROMPT}


@dataclass(frozen=True)
class PartTotals:
    """Tokens of a part, the target's forwards that they took, and seconds. What a forward gives is shared equally
    between the tokens that it gives."""

    tokens: int = 0
    forwards: float = 0.0
    seconds: float = 0.0

    @classmethod
    def sum(cls, each: Iterable["PartTotals"]) -> "PartTotals":
        """The totals of several."""
        seen = list(each)
        return cls(sum(t.tokens for t in seen), sum(t.forwards for t in seen), sum(t.seconds for t in seen))


def parts_of(tokens: Sequence[int], vocabulary: Vocabulary) -> list[str]:
    """The part of each token: a free text's where the text was open before it, so its end counts to it."""
    state, parts = StringState(), []
    for token in tokens:
        field, marks = divmod(state.quotes, 4)
        is_open = marks == 3 and field < len(FIELDS)
        parts.append(_FREE.get(FIELDS[field], KEYS) if is_open else KEYS)
        if token != vocabulary.eos_token_id:
            state = state.after(vocabulary.bytes_of([token]))
    return parts


def totals(parts: Sequence[str], run: Run, stamps: Sequence[tuple[float, int]]) -> dict[str, PartTotals]:
    """Totals by part of what came after the prefill's tokens.

    Args:
        stamps: time and number of tokens of each emission.
    """
    found = {part: PartTotals() for part in (KEYS, REASONING, PROMPT)}
    start = stamps[0][1]
    for size, seconds in _rounds(run, stamps):
        for part in parts[start : start + size]:
            share = PartTotals(1, 1 / size, seconds / size)
            found[part] = PartTotals.sum([found[part], share])
        start += size
    return found


def _rounds(run: Run, stamps: Sequence[tuple[float, int]]) -> list[tuple[int, float]]:
    """Tokens and seconds of each forward after the prefill. Our loop emits token by token and says how many a round
    gave; others emit once per forward."""
    sizes = [size for _, size in stamps[1:]]
    if run.speculation is not None:
        sizes = [accepted + 1 for accepted in run.speculation.accepted]
    moments = [moment for moment, count in stamps for _ in range(count)]
    rounds, place = [], stamps[0][1]
    for size in sizes:
        rounds.append((size, moments[place + size - 1] - moments[place - 1]))
        place += size
    return rounds
