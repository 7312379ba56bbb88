"""What people say about tasks: `"128,chat=64"` is 128 new tokens, 64 in `chat`; `"scene,chart"` are two together.

Reads text; whether there are such tasks is known only to who has the prompts.
"""


def parse_token_limits(text: str) -> tuple[int | None, dict[str, int]]:
    """The limit for all tasks (None where none is given), and those of single tasks.

    Raises:
        ValueError: a part is neither a count nor `TASK=COUNT`, or something is given twice.
    """
    general: int | None = None
    by_task: dict[str, int] = {}
    for part in text.split(","):
        task, equals, count = part.strip().rpartition("=")
        if not count.isdecimal() or int(count) < 1 or (equals and not task):
            raise ValueError(f"--max-new-tokens {text}: write a count of at least 1, and TASK=COUNT behind commas")
        if task in by_task or (not task and general is not None):
            raise ValueError(f"--max-new-tokens {text}: there are two limits for {task or 'all tasks'}")
        if task:
            by_task[task] = int(count)
        else:
            general = int(count)
    return general, by_task


def parse_together(text: str) -> tuple[str, ...]:
    """The names of the tasks.

    Raises:
        ValueError: there are not two of them.
    """
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    if len(names) < 2 or not all(names):
        raise ValueError(f"--together {text}: write at least two tasks, comma between")
    return names
