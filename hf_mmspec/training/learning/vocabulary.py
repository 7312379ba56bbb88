"""Which tokens a drafter may propose: those that the target itself uses.

Counts tokens; knows no model.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

import torch


def draft_vocabulary(answers: Iterable[Sequence[int]], size: int, vocab_size: int) -> torch.Tensor:
    """Target ids of the reduced vocabulary, ascending `int64 (min(size, vocab_size),)`.

    The most frequent tokens of the answers, filled up with the lowest other ids: a byte-pair vocabulary numbers its
    tokens in order of merging, so these are the language's most common ones.
    """
    counts = Counter(token for answer in answers for token in answer)
    chosen = [token for token, _ in counts.most_common(size)]
    spare = (token for token in range(vocab_size) if token not in counts)
    while len(chosen) < min(size, vocab_size):
        chosen.append(next(spare))
    return torch.tensor(sorted(chosen))
