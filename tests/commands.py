"""What the long checks that run by themselves share: surroundings that leave no trace, and a report as JSON.

Imports torch late, as it makes the settings of what is imported.
"""

import argparse
import json
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock


def parser(description: str | None, count: str, default: int) -> argparse.ArgumentParser:
    """With the options that each has: how many, the seed, and where to write numbers."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument(f"--{count}", type=int, default=default, help=f"how many {count}")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--json", type=Path, help="where to write the numbers")
    return made


@contextmanager
def surroundings() -> Iterator[None]:
    """One thread, nothing from the Hub, and measured costs of tiny models outside of the user's cache."""
    # before huggingface_hub and transformers are imported, which read it once
    quiet = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.dict(os.environ, quiet | {"HF_MMSPEC_CACHE": folder}),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        import torch

        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        yield
        torch.set_num_threads(threads)


def write(path: Path | None, **numbers: Any) -> None:
    """The numbers, with machine and versions."""
    if path is None:
        return
    from hf_mmspec.evaluation.machine import machine_facts

    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": machine_facts(), **numbers}, indent=1) + "\n")
