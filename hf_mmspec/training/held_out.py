"""Which answers are kept from training, to measure on: some of every task, chosen by what they are called.

A prompt that was answered several times is held out with all its answers.
"""

import zlib
from collections import defaultdict
from collections.abc import Sequence


def split_off(keys: Sequence[str], tasks: Sequence[str], count: int) -> tuple[list[int], list[int]]:
    """Numbers of the rows to train on, and of those to measure on: one for each held-out prompt.

    Args:
        keys, tasks: of all rows.
        count: prompts to hold out, evenly over the tasks; never more than a third of a task's.
    """
    by_task: dict[str, dict[str, int]] = defaultdict(dict)
    for number, (key, task) in enumerate(zip(keys, tasks, strict=True)):
        by_task[task].setdefault(key or f"row {number}", number)
    chosen: dict[str, int] = {}
    for rank, task in enumerate(sorted(by_task)):
        share = count // len(by_task) + (rank < count % len(by_task))
        prompts = sorted(by_task[task], key=lambda key: (zlib.crc32(key.encode()), key))
        chosen |= {key: by_task[task][key] for key in prompts[: min(share, len(prompts) // 3)]}
    training = [number for number, key in enumerate(keys) if (key or f"row {number}") not in chosen]
    return training, sorted(chosen.values())
