"""The picture of an answer whose domain changes: levels drafted and drafts accepted, round by round.

Reads plain data of `budget_learning.py`; measures nothing. Uses no pyplot, so it keeps no state.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

_SIZE, _DPI = (9.0, 3.6), 130  # inches, dots per inch


def draw(seen: Mapping[str, Any], path: Path) -> None:
    """Write the picture of the report's `change_of_domain` to `path`, as PNG."""
    machine = seen["machine"]
    figure = Figure(figsize=_SIZE, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.axvspan(*seen["other_domain"], color="#f3e3c8", label="text of another domain")
    axes.step(seen["place"], seen["levels"], where="post", color="#3b6fb6", lw=1.4, label="levels drafted")
    axes.plot(seen["place"], seen["accepted"], ".", color="#e08a1e", ms=4, label="drafts accepted")
    axes.set_xlabel("place in the answer, tokens")
    axes.set_ylabel("per round")
    title = "Drafting goes off where it does not pay, and on again"
    axes.set_title(f"{title}\n{machine['cpu']}, {machine['dtype']}".replace("$", r"\$"), loc="left", fontsize=10)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=8, frameon=False)
    figure.savefig(path, dpi=_DPI, format="png")
