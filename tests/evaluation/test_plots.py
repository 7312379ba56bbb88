"""Plots of a report: there, not blank, and they say what they show."""

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from hf_mmspec.evaluation import plots
from hf_mmspec.evaluation.bench import Settings
from hf_mmspec.evaluation.machine import machine_facts
from hf_mmspec.evaluation.report import make_report
from tests.evaluation.test_strata import results


@pytest.fixture(scope="module")
def report():
    return make_report([results([range(61), range(73)], [64, 64], [2, 4])], Settings(), machine_facts())


def test_three_plots_are_written_and_none_is_blank(report, tmp_path):
    paths = plots.draw_plots(report, tmp_path / "deep" / "plots")
    assert [path.name for path in paths] == ["speed.png", "acceptance.png", "round.png"]
    for path in paths:
        pixels = np.asarray(Image.open(path).convert("L"))
        assert pixels.shape[0] > 500 and pixels.shape[1] > 1000
        assert 0.005 < (pixels < 200).mean() < 0.9  # ink, and paper


def drawn(draw, report) -> Axes:
    axes = Figure().add_subplot()
    assert draw(axes, report)
    return axes


def test_bars_are_the_speeds_with_a_legend_of_drafters(report):
    axes = drawn(plots._speed, report)
    assert [bar.get_height() for bar in axes.patches] == [report["rows"][0]["decode_speedup"]]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["all"]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["d"]


def test_lines_are_the_shares_by_position(report):
    axes = drawn(plots._acceptance, report)
    assert list(axes.get_lines()[0].get_ydata()) == report["summary"]["d"]["acceptance_by_position"]
    assert axes.get_legend().get_texts()[0].get_text() == f"d (L {report['summary']['d']['acceptance_length']:.2f})"


def test_the_parts_of_a_round_add_up(report):
    axes = drawn(plots._round, report)
    assert sum(bar.get_width() for bar in axes.patches) == pytest.approx(1)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["draft", "verify", "other"]


def test_the_title_names_the_machine(report, tmp_path, monkeypatch):
    titles = []
    monkeypatch.setattr(
        Figure, "savefig", lambda figure, *_, **__: titles.append(figure.axes[0].get_title(loc="left"))
    )
    plots.draw_plots(report, tmp_path)
    assert len(titles) == 3 and all(report["machine"]["cpu"] in title for title in titles)


def test_a_plot_without_data_is_left_out(report, tmp_path):
    bare = {**report, "summary": {"prompt_lookup": {"decode_speedup": 1.0}}, "rows": report["rows"]}
    bare["rows"] = [{**report["rows"][0], "drafter": "prompt_lookup"}]
    assert [path.name for path in plots.draw_plots(bare, tmp_path)] == ["speed.png"]
