"""What cells say together: tables, differences of the same seed, where a claim holds; the page and the picture."""

from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from PIL import Image

from hf_mmspec.training.judging.cells import Cells
from hf_mmspec.training.judging.claim_list import CLAIMS, SPEED, L
from hf_mmspec.training.judging.claims_page import PageError, blocks, fill_page
from hf_mmspec.training.judging.claims_plot import _panel, draw_claims
from hf_mmspec.training.judging.claims_report import claims_in, differences, report_lines, spread, verdict

CLAIM = CLAIMS["msd-decoupling"]
NONE, ONE, FOUR = (0, 0), (1, 144), (4, 576)
PAGE = Path(__file__).parents[3] / "docs" / "papers.md"
RUNS = sorted((PAGE.parent / "results").glob("*-claims*.json"))
MACHINE = {
    **{"cpu": "a processor", "threads": 2, "dtype": "bfloat16", "amx": True, "avx512_bf16": True},
    **{"git_revision": "abc", "command": "claims.py --json f", "versions": {"torch": "1", "transformers": "5"}},
}
SETTINGS = {
    **{"minutes": 3.0, "changes": ["drafter.draft_vocab_size=9"], "prompts": ["a", "b"], "max_new_tokens": 120},
    "budget": {"draft_mode": "tree", "draft_depth": 8, "draft_top_k": 7, "draft_total_tokens": 30},
}


def cell(arm, seed, group, length, speed=40.0):
    facts = {"parameters": 4_200_000, "steps": 30 + seed, "seconds": 180.4, "draft_milliseconds": 7.0}
    pictures, tokens = group
    numbers = {"acceptance_length": length, "tokens_per_second": speed}
    return {"arm": arm, "seed": seed, "pictures": pictures, "visual_tokens": tokens, **facts, **numbers}


CELLS = [
    cell("msd", 0, NONE, 3.0),
    cell("msd", 1, NONE, 3.2),
    cell("msd", 0, FOUR, 4.0, 50.0),
    cell("msd", 1, FOUR, 5.0, 60.0),
    cell("msd, coupled", 0, NONE, 3.1),
    cell("msd, coupled", 1, NONE, 3.1),
    cell("msd, coupled", 0, FOUR, 3.75, 45.0),
    cell("msd, coupled", 1, FOUR, 4.5, 61.0),
]


def rows(lines):
    return [[word.strip() for word in line.strip("|").split("|")] for line in lines if line and "---" not in line]


def test_the_tables_of_a_claim():
    head, *found = rows(report_lines(CLAIM, CELLS))
    assert head[5:] == ["no picture", "4 pictures, 576 visual tokens"]
    assert found == [
        ["msd", "2", "4.2", "30", "180", "3.10 (3.00 to 3.20)", "4.50 (4.00 to 5.00)"],
        ["msd, coupled", "2", "4.2", "30", "180", "3.10 (3.10 to 3.10)", "4.12 (3.75 to 4.50)"],
        ["tokens/s; drafting per round", *head[5:]],
        ["msd", "40.0 (40.0 to 40.0); 7.0 ms", "55.0 (50.0 to 60.0); 7.0 ms"],
        ["msd, coupled", "40.0 (40.0 to 40.0); 7.0 ms", "53.0 (45.0 to 61.0); 7.0 ms"],
        ["msd, more than", "measure", *head[5:], "holds"],
        [
            *("msd, coupled", "L", "+0.00 (-0.10 to +0.10)", "**+0.38 (+0.25 to +0.50)**"),
            "from 576 visual tokens on",
        ],
        ["msd, coupled", "tokens/s", "+0.0 (+0.0 to +0.0)", "+2.0 (-1.0 to +5.0)", ""],
    ]


def test_an_unfinished_study_is_reported_as_soon_as_there_is_something_to_compare():
    assert report_lines(CLAIM, []) == report_lines(CLAIM, CELLS[:1]) == ["*Not run yet.*"]
    one_seed = rows(report_lines(CLAIM, [CELLS[0], CELLS[4], CELLS[7]]))
    assert one_seed[-2] == ["msd, coupled", "L", "-0.10", "", "too few seeds"]


def test_differences_are_of_the_same_seed():
    assert differences(CELLS[1:], "msd", "msd, coupled", NONE, "acceptance_length") == [pytest.approx(0.1)]


@pytest.mark.parametrize(
    "by_group, expected",
    [
        ({NONE: [0.1, 0.2], ONE: [0.1, 0.1]}, "everywhere"),
        ({NONE: [-0.1, 0.2], ONE: [0.1, 0.1], FOUR: [0.3, 0.1]}, "from 144 visual tokens on"),
        ({NONE: [-0.1, -0.2], ONE: [0.1, 0.1]}, "from 144 visual tokens on; the contrary at 0"),
        ({NONE: [0.1, 0.2], ONE: [0.1, -0.1]}, "at 0 visual tokens only"),
        ({NONE: [-0.1, 0.2], ONE: [-0.1, -0.1], FOUR: [-1, -2]}, "nowhere; the contrary at 144 and 576"),
        ({NONE: [0.0, 0.2]}, "nowhere"),
        ({NONE: [0.1], ONE: [0.1, 0.2]}, "too few seeds"),
    ],
)
def test_where_a_claim_holds(by_group, expected):
    assert verdict(by_group) == expected


def test_spread():
    assert spread([1.0, 2.0], 1) == "1.5 (1.0 to 2.0)"
    assert spread([-1.0], 2, "+") == "-1.00"
    assert spread([], 2) == ""


@pytest.fixture
def kept(tmp_path):
    return Cells(tmp_path / "f.json", MACHINE, SETTINGS, CELLS)


def test_a_page_gets_its_blocks_and_keeps_the_rest(kept, tmp_path):
    page, before = tmp_path / "page.md", PAGE.read_text().replace(f"run of {RUNS[0].stem} -->", "run of f -->")
    page.write_text(before)
    fill_page(page, kept)
    once = page.read_text()
    assert "4 trainings of 3 minutes each; 2 prompts" in once
    assert "a tree of 30 nodes, 8 levels and 7 children. Changes to all recipes: drafter.draft_vocab_size=9." in once
    assert "**+0.38 (+0.25 to +0.50)**" in once
    curriculum = before.index("<!-- claims: msd-curriculum -->")  # of the other claim about MSD they are one arm
    assert once.endswith(before[curriculum:])
    fill_page(page, kept)
    assert page.read_text() == once
    assert [line for line in before.splitlines() if line.startswith("#")] == [
        line for line in once.splitlines() if line.startswith("#")
    ]
    page.write_text("no blocks")
    with pytest.raises(PageError, match="no block <!-- claims: run of f -->"):
        fill_page(page, kept)
    assert page.read_text() == "no blocks"


def test_the_page_says_what_every_claim_says(kept):
    text = " ".join(PAGE.read_text().split())
    for claim in CLAIMS.values():
        assert f"## `{claim.name}`" in text
        assert claim.source in text or claim.source == "ours"
        assert all(f"`{arm}`" in text for arm in claim.arms)
    assert set(blocks(kept)) == {"run of f", CLAIM.name}


def test_the_page_is_what_its_files_say(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(PAGE.read_text())
    told = []
    for run in RUNS:
        fill_page(page, Cells.read(run))
        told += [claim.name for claim in claims_in(Cells.read(run).cells)]
    assert page.read_text() == PAGE.read_text()
    assert sorted(told) == sorted(CLAIMS)


def test_epochs_instead_of_minutes(kept):
    settings = {name: value for name, value in SETTINGS.items() if name != "minutes"}
    equal = replace(kept, settings={**settings, "epochs": 1.5, "changes": []})
    assert "of 1.5 epochs each" in blocks(equal)["run of f"][-1]
    assert "Changes to all recipes: none" in blocks(equal)["run of f"][-1]


@pytest.mark.parametrize("cells, panels", [(CELLS, 1), (CELLS[:1], 0), ([], 0)])
def test_the_picture(kept, tmp_path, cells, panels):
    file = tmp_path / "p.png"
    draw_claims(replace(kept, cells=cells), file)
    width, height = Image.open(file).size
    assert width / height == pytest.approx(4.6 * max(panels, 1) / 3.2, rel=0.01)


@pytest.mark.parametrize("by, name, seen", [(L, "L", [3.1, 4.5]), (SPEED, "tokens/s", [40.0, 55.0])])
def test_a_panel_shows_what_decides(kept, by, name, seen):
    axes = Figure().add_subplot()
    _panel(axes, replace(CLAIM, by=by), kept)
    assert axes.get_ylabel() == name
    assert axes.containers[0].lines[0].get_ydata().tolist() == pytest.approx(seen)
