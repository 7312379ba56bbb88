"""Options that take one of a few words: the words, and the one check, made before anything heavy is imported.

Knows words, not what they stand for; tests compare them with those who do.
"""

from collections.abc import Sequence

DTYPES = ("auto", "float32", "bfloat16", "float16")
FEATURES = ("auto", "stored", "live")
PRECISIONS = ("auto", "bf16", "fp32")
# what `mmspec train --family` understands
RECIPES = ("vispec", "vispec_paper", "msd", "flash", "eagle", "eagle2", "eagle-2", "eagle3", "eagle-3")

# what `mmspec convert --family` and `--layer-ids` understand
LAYOUTS = ("eagle", "eagle3", "flash", "msd", "vispec")
LAYER_IDS = ("inputs", "outputs")


def check_choice(option: str, value: str | None, choices: Sequence[str]) -> None:
    """Raises ValueError for a word that is none of `choices`; None is an option that was not given."""
    if value is not None and value not in choices:
        raise ValueError(f"{option} {value}: choose one of {', '.join(choices)}")
