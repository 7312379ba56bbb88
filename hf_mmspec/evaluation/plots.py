"""Pictures of a bench's report: speed by task, acceptance by position, the parts of a round.

Reads the report's plain data; measures nothing. Uses no pyplot, so it keeps no state.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .contenders import LOOP
from .report import summary_name

_PARTS = {"draft": "#e08a1e", "verify": "#3b6fb6", "other": "#aab4bf"}
_SIZE, _DPI = (9.0, 4.8), 130  # inches, dots per inch


def draw_plots(report: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write `speed.png`, `acceptance.png` and `round.png` to `folder`, which is made; returns their paths. Those for
    which nothing was measured are left out."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, draw in {"speed": _speed, "acceptance": _acceptance, "round": _round}.items():
        if figure := _figure(draw, report):
            figure.savefig(folder / f"{name}.png", dpi=_DPI)
            paths.append(folder / f"{name}.png")
    return paths


def speed_picture(report: Mapping[str, Any], metadata: Mapping[str, str]) -> bytes:
    """The speeds alone, as a PNG that carries `metadata`: for a drafter's card."""
    file, figure = io.BytesIO(), _figure(_speed, report)
    assert figure is not None  # there are always speeds
    figure.savefig(file, dpi=_DPI, metadata=dict(metadata))
    return file.getvalue()


def _figure(draw: Callable[[Axes, Mapping[str, Any]], bool], report: Mapping[str, Any]) -> Figure | None:
    """One plot with the machine in its title; None where nothing was measured for it."""
    figure = Figure(figsize=_SIZE, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    if not draw(axes, report):
        return None
    axes.set_title(f"{axes.get_title(loc='left')}\n{_machine(report['machine'])}", fontsize=10, loc="left")
    return figure


def _speed(axes: Axes, report: Mapping[str, Any]) -> bool:
    """Bars by task, one for each drafter and temperature, with their intervals."""
    tasks = list(dict.fromkeys(row["task"] for row in report["rows"]))
    names = list(report["summary"])
    width = 0.8 / len(names)
    for row in report["rows"]:
        number = names.index(summary_name(row["drafter"], row["temperature"]))
        speed = row["decode_speedup"]
        low, high = row.get("decode_speedup_interval") or (speed, speed)
        place = tasks.index(row["task"]) + (number - (len(names) - 1) / 2) * width
        errors = [[max(speed - low, 0)], [max(high - speed, 0)]]
        axes.bar(place, speed, width * 0.92, yerr=errors, color=_colour(number), error_kw={"lw": 0.8})
        axes.annotate(f"{speed:.1f}", (place, 0), (0, 2), textcoords="offset points", ha="center", size=7)
    axes.axhline(1, color="#1d2733", lw=0.8, ls="--")
    axes.set_xticks(range(len(tasks)), map(_literal, tasks))
    _finish(axes, "Decode speed-up over stock generate, 95 % intervals", "task", "times stock tokens/s", names)
    return True


def _acceptance(axes: Axes, report: Mapping[str, Any]) -> bool:
    """Lines over the positions of drafts."""
    lines = {name: row["acceptance_by_position"] for name, row in report["summary"].items() if _drafts(name, row)}
    for name, shares in lines.items():
        colour = _colour(list(report["summary"]).index(name))
        label = f"{_literal(name)} (L {report['summary'][name]['acceptance_length']:.2f})"
        axes.plot(range(1, len(shares) + 1), shares, "o-", ms=4, color=colour, label=label)
    axes.set_ylim(0, 1.03)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _finish(axes, "Acceptance by position, given that the drafts before were accepted", "draft", "share accepted")
    return bool(lines)


def _round(axes: Axes, report: Mapping[str, Any]) -> bool:
    """Stacked bars: where the time of a round goes."""
    rows = {name: row["round_shares"] for name, row in report["summary"].items() if row.get("round_shares")}
    left = [0.0] * len(rows)
    for part, colour in _PARTS.items():
        shares = [row[part] for row in rows.values()]
        bars = axes.barh(range(len(rows)), shares, left=left, color=colour, label=part)
        axes.bar_label(bars, [f"{share:.0%}" if share > 0.04 else "" for share in shares], label_type="center", size=8)
        left = [before + share for before, share in zip(left, shares, strict=True)]
    axes.set_yticks(range(len(rows)), map(_literal, rows))
    axes.invert_yaxis()
    _finish(axes, "Where the time of a round goes (verify is the loop efficiency)", "share of decoding time", "")
    return bool(rows)


def _finish(axes: Axes, title: str, x: str, y: str, names: Sequence[str] = ()) -> None:
    """Title, labels and a legend beside the plot: of coloured `names`, or of what was labelled."""
    axes.set_title(title, loc="left")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for number, name in enumerate(names):
        axes.scatter([], [], color=_colour(number), marker="s", label=_literal(name))
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=8, frameon=False)


def _drafts(name: str, row: Mapping[str, Any]) -> bool:
    return bool(row.get("acceptance_by_position")) and name.partition("@")[0] != LOOP


def _colour(number: int) -> Any:
    """A drafter's colour, by its place in the summary."""
    return colormaps["tab20"](number % 20)


def _machine(machine: Mapping[str, Any]) -> str:
    processor = machine.get("accelerator") or machine.get("cpu") or "unknown machine"
    facts = (f"{machine.get('threads')} threads", machine.get("dtype"), f"revision {machine.get('git_revision')}")
    return _literal(", ".join(map(str, (processor, *facts))))


def _literal(text: str) -> str:
    """Dollar signs as they are, since matplotlib would read formulas, and nothing that no font has."""
    return "".join(letter for letter in text if letter.isprintable()).replace("$", r"\$")
