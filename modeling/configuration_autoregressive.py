"""Configuration of drafters that feed on their own outputs: what happens to the rows that they drafted.

Knows no drafter family.
"""

from huggingface_hub.dataclasses import strict

from .configuration_visual import VisualConfig

ACCEPTED_ROWS = ("refresh", "reuse")


@strict
class AutoregressiveConfig(VisualConfig):
    """`VisualConfig` plus the way of drafting.

    Args:
        accepted_rows: `"refresh"`: after each round all accepted tokens are read again, with the target's features.
            `"reuse"`: rows that were written while these tokens were drafted stay in the cache; only tokens without
            one are read, which are the bonus token and, at times, the last accepted one. Answers are the same.

    Raises:
        StrictDataclassError: an unknown choice (and see `VisualConfig`).
    """

    accepted_rows: str = "refresh"

    def validate_architecture(self) -> None:
        super().validate_architecture()
        if self.accepted_rows not in ACCEPTED_ROWS:
            raise ValueError(f"accepted_rows must be one of {', '.join(ACCEPTED_ROWS)}, got {self.accepted_rows!r}")
