"""Files that are whole or not there: a killed process leaves the old one, or the new one."""

import json
import math
import os
from pathlib import Path
from typing import Any


def write_whole(file: Path, text: str) -> None:
    """Write aside, then rename: UTF-8. The folder must exist.

    Raises:
        OSError: the file cannot be written; what was there stays.
    """
    partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, file)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_json(file: Path, data: Any) -> None:
    """Valid JSON, whole or not at all; numbers that do not exist are null, folders are made.

    Raises:
        OSError: as `write_whole`.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, json.dumps(_without_nan(data), indent=1, allow_nan=False) + "\n")


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
