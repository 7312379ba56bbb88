"""Whether an answer repeats itself: drafters look good on such answers, so a report has to say how many there are.

Counts n-grams of token ids; judges nothing else.
"""

from collections.abc import Hashable, Sequence

NGRAM = 8
THRESHOLD = 0.2


def repeated_share(tokens: Sequence[Hashable], n: int = NGRAM) -> float:
    """The share of n-grams that stood earlier in the same sequence; 0 where it is shorter than n."""
    grams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def is_repetitive(tokens: Sequence[Hashable]) -> bool:
    """Whether more than `THRESHOLD` of an answer's n-grams are repeated."""
    return repeated_share(tokens) > THRESHOLD
