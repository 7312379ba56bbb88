"""Every test is offline, seeded and small; nothing here knows what is tested."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before huggingface_hub is imported, which reads it once

import pytest
import torch
from hypothesis import settings

from hf_mmspec.generation import cost_cache, costs

# The processes of pytest-xdist share two cores: threads that spin for each other would stall them all.
_PROCESSES = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
torch.set_num_threads(max(1, min(2, torch.get_num_threads()) // _PROCESSES))

# Property tests try the same cases in every run: what was not changed does not begin to fail. New cases are for a
# person to look for: `pytest --hypothesis-profile default`.
settings.register_profile("same cases", derandomize=True, database=None, deadline=None)
settings.load_profile("same cases")


@pytest.fixture(autouse=True)
def seeded():
    """The same random numbers in every test, in any order."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def own_cost_cache(tmp_path_factory):
    """Measured forward costs of tiny test models do not land in the user's cache, and are measured once: no test needs
    them exact, and many models are measured."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("costs")
        patch.setattr(cost_cache, "cache_folder", lambda: folder)
        patch.setattr(costs, "_REPETITIONS", 1)
        yield
