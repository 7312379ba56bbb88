"""The table of drafting costs: every family, and what must not grow with the image."""

import pytest
import torch

from hf_mmspec.evaluation import draft_cost
from hf_mmspec.modeling import DraftBudget

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(draft_cost, "SHAPES", {32: (48, 4, 2)})
    monkeypatch.setattr(draft_cost, "IMAGE_GROWTH", (64, 576))


def test_every_setting_is_measured_and_printed():
    found = list(draft_cost.settings([32], 120, 40))
    assert len(found) == len(set(found)) == 5 * 4 + 5
    assert {setting.drafter for setting in found} == set(draft_cost.DRAFTERS)
    rows = []
    for setting in found:
        cost = draft_cost.measure(setting, DraftBudget(5, 4, 20), CPU, torch.float32, repetitions=1)
        assert cost.levels == (4 if setting.drafter == "flash" else 5)
        assert min(cost.prefill, cost.extend, cost.propose, cost.round) > 0
        rows.append({**draft_cost.asdict(setting), **draft_cost.asdict(cost)})
    by_size, growth = draft_cost.to_markdown(rows).split("\n\n")
    assert len(by_size.splitlines()) == 2 + 5 * 2 and len(growth.splitlines()) == 2 + 5
    assert "| text | image of 576 |" in by_size and "| drafter | 64 | 576 |" in growth


@pytest.mark.parametrize(
    "name, kept", [("eagle", 676), ("msd", 676), ("eagle3", 676), ("vispec", 101), ("flash", 164)]
)
def test_compressing_drafters_keep_few_rows(name, kept):
    setting = draft_cost.Setting(name, 32, 120, None, 576)
    cost = draft_cost.measure(setting, DraftBudget(2, 2, 5), CPU, torch.float32, repetitions=1)
    assert cost.cache_rows == kept
