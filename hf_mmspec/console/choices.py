"""Options that take one of a few words: the words, and the one check, made before anything heavy is imported.

Knows words, not what they stand for; tests compare them with those who do.
"""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

DTYPES = ("auto", "float32", "bfloat16", "float16")
FEATURES = ("auto", "stored", "live")
PRECISIONS = ("auto", "bf16", "fp32")
QUANTISATIONS = ("nf4", "int8")
# what `mmspec train --family` understands
RECIPES = (
    *("vispec", "vispec_deep", "vispec_paper", "msd", "flash", "eagle", "eagle2", "eagle-2", "eagle3", "eagle-3"),
    *("vispec_on", "msd_on", "flash_on", "eagle_on", "eagle3_on"),
)

# what `mmspec convert --family` and `--layer-ids` understand
LAYOUTS = ("eagle", "eagle3", "flash", "msd", "vispec")
LAYER_IDS = ("inputs", "outputs")


def check_choice(option: str, value: str | None, choices: Sequence[str]) -> None:
    """Raises ValueError for a word that is none of `choices`; None is an option that was not given."""
    if value is not None and value not in choices:
        raise ValueError(f"{option} {value}: choose one of {', '.join(choices)}")


def check_png(option: str, file: Path | None) -> None:
    """Raises ValueError for a picture that would not be a PNG by its name; None is an option that was not given."""
    if file is not None and file.suffix.lower() != ".png":
        raise ValueError(f"{option} {file}: pictures are PNG, give a name that ends in .png")


def check_quantize(value: str | None) -> None:
    """Raises ValueError for a word that is none of `QUANTISATIONS`, and ModuleNotFoundError where the package that
    packs weights is not installed: better known before anything is loaded than after."""
    check_choice("--quantize", value, QUANTISATIONS)
    for module in ("bitsandbytes", "accelerate") if value is not None else ():
        if find_spec(module) is None:
            raise ModuleNotFoundError(f"No module named {module!r}", name=module)
