"""Which tokens a drafter may propose: those that the target itself uses.

Counts tokens; knows no model.
"""

from collections import Counter

import torch

from .records import Record


def draft_vocabulary(records: list[Record], at_least: int, at_most: int, vocab_size: int) -> torch.Tensor:
    """Target ids of the reduced vocabulary, ascending `int64`.

    Everything in the answers, the most frequent first up to `at_most`, filled up to `at_least` with the lowest other
    ids: a byte-pair vocabulary numbers its tokens in order of merging, so these are the language's most common ones.
    """
    counts = Counter(token for record in records for token in record.answer)
    chosen = [token for token, _ in counts.most_common(at_most)]
    spare = (token for token in range(vocab_size) if token not in counts)
    while len(chosen) < min(at_least, vocab_size):
        chosen.append(next(spare))
    return torch.tensor(sorted(chosen))


def coverage(records: list[Record], token_ids: torch.Tensor) -> float:
    """Share of answer tokens that the reduced vocabulary can express."""
    known = set(token_ids.tolist())
    answers = [token for record in records for token in record.answer]
    return sum(token in known for token in answers) / max(len(answers), 1)
