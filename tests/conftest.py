"""Every test is offline, seeded and small; nothing here knows what is tested."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before huggingface_hub is imported, which reads it once

import pytest
import torch

torch.set_num_threads(min(2, torch.get_num_threads()))


@pytest.fixture(autouse=True)
def seeded():
    """The same random numbers in every test, in any order."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def own_cost_cache(tmp_path_factory, monkeypatch):
    """Measured forward costs of tiny test models do not land in the user's cache."""
    monkeypatch.setenv("MMSPEC_CACHE", str(tmp_path_factory.mktemp("mmspec")))
