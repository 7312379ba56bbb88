"""Files that are whole or not there: a killed process leaves the old one, or the new one."""

import os
from pathlib import Path


def write_whole(file: Path, text: str) -> None:
    """Write aside, then rename. The folder must exist.

    Raises:
        OSError: the file cannot be written; what was there stays.
    """
    partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
    partial.write_text(text)
    os.replace(partial, file)
