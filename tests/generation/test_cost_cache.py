"""The files of measured costs: where they are, and that no damaged one is believed."""

from pathlib import Path

import pytest

from hf_mmspec.generation import cost_cache, costs
from hf_mmspec.generation.cost_cache import Measured, remembered
from hf_mmspec.generation.costs import cached_costs
from hf_mmspec.generation.steadiness import Timings
from hf_mmspec.modeling import ViSpecDrafter

from .test_budget import ORIGINAL_CACHE_FOLDER
from .tiny import llava

HOMES = ("HF_MMSPEC_CACHE", "HF_HOME", "XDG_CACHE_HOME")
SOUND = Measured({0: 0.5, 1: 0.25})


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({}, "~/.cache/huggingface/hf_mmspec/costs"),
        (dict.fromkeys(HOMES, ""), "~/.cache/huggingface/hf_mmspec/costs"),
        ({"HF_MMSPEC_CACHE": "", "HF_HOME": "/hub"}, "/hub/hf_mmspec/costs"),
        ({"HF_HOME": "", "XDG_CACHE_HOME": "/xdg"}, "/xdg/huggingface/hf_mmspec/costs"),
        ({"HF_MMSPEC_CACHE": "~/ours", "HF_HOME": "/hub"}, "~/ours/costs"),
    ],
)
def test_an_empty_variable_counts_as_unset(monkeypatch, variables, folder):
    """`./costs` would be somebody's folder, and `forget` would delete it."""
    for name in HOMES:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert Path(folder).expanduser() == ORIGINAL_CACHE_FOLDER()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty cache of a process that knows nothing."""
    monkeypatch.setattr(cost_cache, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(cost_cache, "_known", {})
    return tmp_path


def test_a_sound_file_is_believed(folder):
    (folder / "key.json").write_text('{"0": 0.5, "1": 0.25, "8": 1}')
    assert remembered("key", lambda: pytest.fail("measured"), (0, 1)).numbers == {0: 0.5, 1: 0.25, 8: 1.0}


@pytest.mark.parametrize(
    "text",
    [
        '{"x": 1.0}',
        '{"0": 0.5, "1": 0.25, "x": 1.0}',
        '{"0": 0.5, "1": 0.25, "-1": 1.0}',
        '{"1": 0.1}',
        '{"0": 0.1, "8": 0.1}',
        '{"0": 0.5, "1": -0.25}',
        '{"0": 0.5, "1": 0}',
        '{"0": 0.5, "1": NaN}',
        '{"0": 0.5, "1": Infinity}',
        '{"0": 0.5, "1": 1' + 400 * "0" + "}",
        '{"0": 0.5, "1": null}',
        "3",
    ],
)
def test_a_damaged_file_is_measured_again_and_mended(folder, monkeypatch, text):
    (folder / "key.json").write_text(text)
    assert remembered("key", lambda: SOUND, (0, 1)).numbers == SOUND.numbers
    monkeypatch.setattr(cost_cache, "_known", {})  # a new process
    assert remembered("key", lambda: pytest.fail("measured again"), (0, 1)).numbers == SOUND.numbers


@pytest.mark.parametrize("text", ['{"8": 0.1}', '{"0": 0.1}', '{"1": 0.1}'])
def test_costs_that_a_budget_cannot_be_chosen_from_are_measured_again(folder, monkeypatch, text):
    monkeypatch.setattr(Timings, "is_steady", True)
    monkeypatch.setattr(costs, "_are_credible", lambda numbers: True)
    target = llava()
    drafter = ViSpecDrafter.from_target(target)
    cached_costs(target, drafter)
    for path in folder.glob("*.json"):
        path.write_text(text)
    monkeypatch.setattr(cost_cache, "_known", {})  # a new process
    found = cached_costs(target, drafter)
    assert found.round_seconds(16, 3, 2) > 0 and found.growth(16) > 0
    assert text not in [path.read_text() for path in folder.glob("*.json")]


def test_a_large_batch_is_measured_by_a_smaller_one(folder, monkeypatch):
    """The memory that so many rows take is the request's; what they cost is known from fewer."""
    measured = []

    def verify(target, rows):
        measured.append(rows)
        return Measured({1: 1.0, 2: 1.1, 4: 1.2, 8: 1.3, 16: 1.5, 32: 2.0})

    monkeypatch.setattr(costs, "_steady_verify", verify)
    monkeypatch.setattr(costs, "_steady_draft", lambda *_: Measured({0: 0.1, 1: 0.1, 10: 0.1}))
    target = llava()
    drafter = ViSpecDrafter.from_target(target)
    assert [costs.cost_record(target, drafter, rows).rows for rows in (5, 300)] == measured == [8, 32]
