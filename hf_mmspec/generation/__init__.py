"""Decoding: the target adapter, tree verification and the loop. Knows no drafter family by name."""

from .draft_constraint import DraftConstraint
from .statistics import Speculation, SpeculativeOutput
from .strategy import install_hook, speculative_decoding

__all__ = ["DraftConstraint", "Speculation", "SpeculativeOutput", "install_hook", "speculative_decoding"]
