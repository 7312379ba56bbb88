"""The picture of a study of claims: what decides each of them, L or speed, over visual tokens.

Reads plain data; measures nothing. Uses no pyplot, so it keeps no state.
"""

import math
from pathlib import Path
from statistics import mean

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from .cells import Cells
from .claim_list import Claim
from .claims_report import NAMES, claims_in, groups_of, values

_PANEL, _COLUMNS, _DPI = (4.6, 3.2), 3, 110  # inches, dots per inch


def draw_claims(kept: Cells, file: Path) -> None:
    """Write the picture as PNG: means over seeds, bars from the least to the largest. Claims of which less
    than two arms were run are left out."""
    claims = claims_in(kept.cells)
    rows, columns = math.ceil(len(claims) / _COLUMNS), min(len(claims), _COLUMNS)
    figure = Figure(figsize=(_PANEL[0] * max(columns, 1), _PANEL[1] * max(rows, 1)), layout="constrained")
    FigureCanvasAgg(figure)
    for number, claim in enumerate(claims):
        _panel(figure.add_subplot(rows, columns, number + 1), claim, kept)
    figure.suptitle(f"{kept.machine['cpu']}, {kept.machine['dtype']}".replace("$", r"\$"), fontsize=9)
    figure.savefig(file, dpi=_DPI, format="png")


def _panel(axes: Axes, claim: Claim, kept: Cells) -> None:
    for arm in claim.arms:
        groups = groups_of(kept.cells, [arm])
        found = [list(values(kept.cells, arm, group, claim.by).values()) for group in groups]
        if found:
            middles = [mean(each) for each in found]
            below = [middle - min(each) for middle, each in zip(middles, found, strict=True)]
            above = [max(each) - middle for middle, each in zip(middles, found, strict=True)]
            places = [tokens for _, tokens in groups]
            axes.errorbar(places, middles, yerr=[below, above], fmt="o-", ms=4, lw=1.2, capsize=2, label=arm)
    axes.set_title(claim.name, loc="left", fontsize=10)
    axes.set_xlabel("visual tokens of a prompt")
    axes.set_ylabel(NAMES[claim.by])
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(fontsize=7, frameon=False)
