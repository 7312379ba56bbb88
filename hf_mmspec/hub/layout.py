"""What a published layout is: which of the authors' names become which of ours, which are left out, and why.

One `*_layout.py` for each family fills it in for a checkpoint; `plan.py` applies it.
"""

import re
from dataclasses import dataclass, field
from typing import Any

EMBEDDINGS = "embed_tokens.weight"
# allow-list of what any authors' file may carry besides the drafter's own weights: pattern -> why it is left out
LEFT_OUT = {
    r"embed_tokens\.weight": "a frozen copy of the target's embeddings, which are borrowed; its fingerprint is kept",
    r"(.+\.)?rotary_emb\.(inv_freq|cos_cached|sin_cached)": "a table that is computed from the config",
}


@dataclass(frozen=True)
class Layout:
    """A published layout, as one checkpoint has it.

    Args:
        family: our `model_type`.
        title: what people call it.
        fields: config fields of the drafter.
        renames: beginnings of the authors' names -> ours; other names stay.
        left_out: patterns of whole names that are left out -> why, besides `LEFT_OUT`.
        notes: what a user should know.
    """

    family: str
    title: str
    fields: dict[str, Any]
    renames: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def our_name(self, theirs: str) -> str:
        """A drafter's parameter name from the authors'."""
        for beginning, ours in self.renames.items():
            if theirs.startswith(beginning):
                return ours + theirs.removeprefix(beginning)
        return theirs

    def their_name(self, ours: str) -> str:
        """The reverse, for messages."""
        for theirs, beginning in self.renames.items():
            if ours.startswith(beginning):
                return theirs + ours.removeprefix(beginning)
        return ours

    def why_left_out(self, theirs: str) -> str | None:
        """The reason for leaving a tensor out, None for one that is needed."""
        for pattern, why in {**LEFT_OUT, **self.left_out}.items():
            if re.fullmatch(pattern, theirs):
                return why
        return None
