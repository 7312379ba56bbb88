"""Full disks: noticed before something is written where that can be foreseen, and explained where it cannot.

Knows nothing about what is written.
"""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_ADVICE = "Make room and run the same command again; nothing that is finished is lost"
_FULL = {errno.ENOSPC, errno.EDQUOT}
_FULL_WORDS = ("No space left on device", "unexpected pos")  # in the errors of safetensors and of torch


def insist_on_room(folder: Path, needed: int, what: str = "the next shard") -> None:
    """Stop while the disk still has room for `needed` bytes and as much again.

    Raises:
        OSError: it has not.
    """
    free = shutil.disk_usage(folder).free
    if free < 2 * needed:
        raise OSError(
            f"{folder}: {free / 1e9:.2f} GB free, but {what} needs {needed / 1e9:.2f} GB and a reserve. {_ADVICE}"
        )


@contextmanager
def full_disk_explained(folder: Path) -> Iterator[None]:
    """What a full disk raises inside the `with` block, whichever library wrote, becomes an OSError with folder and
    fix."""
    try:
        yield
    except Exception as error:
        is_full = getattr(error, "errno", None) in _FULL or any(word in str(error) for word in _FULL_WORDS)
        if not is_full:
            raise
        raise OSError(f"{folder}: the disk is full ({error}). {_ADVICE}") from error
