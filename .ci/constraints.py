"""Prints the pip constraints for this environment: the given file, with a torch that must be kept pinned as it is.

Knows nothing about packages other than torch. Usage: python .ci/constraints.py constraints.txt
"""

import importlib.metadata
import importlib.util
import re
import sys
from pathlib import Path

DEFAULT = "constraints.txt"


def torch_to_keep() -> str | None:
    """The version of a torch that this environment must not lose: a GPU build, or one from outside of it."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    import torch

    outside = not Path(spec.origin).is_relative_to(sys.prefix)
    return importlib.metadata.version("torch") if outside or torch.version.cuda or torch.version.hip else None


def main(path: str) -> None:
    """Print the constraints of `path`; only a file that the user named himself replaces an existing GPU torch."""
    text = Path(path).read_text()
    kept = torch_to_keep() if path == DEFAULT else None
    if kept:
        text = re.sub(r"(?m)^torch\s*==.*$", f"torch=={kept}", text)
    print(text, end="")


if __name__ == "__main__":
    main(*sys.argv[1:])
