"""Every test is offline, seeded and small; nothing here knows what is tested."""

import os
from pathlib import Path

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


# Files that take longest, by their place in this folder. They come first, in this order: the last file that a process
# of pytest-xdist takes should be a short one, as the others wait for it.
HEAVY = (
    "generation/test_compiled_targets.py",
    "generation/test_batches.py",
    "training/robustness/test_kills.py",
    "hub/test_stranger.py",
    "families/test_families.py",
    "training/test_two_commands.py",
    "generation/test_every_family.py",
    "rewriting/test_rewriter.py",
    "identity/test_identity.py",
    "training/robustness/test_training.py",
    "training/judging/test_claims.py",
    "generation/test_sampling.py",
    "training/robustness/test_processes.py",
    "generation/test_lossless_greedy.py",
    "generation/test_batch_sampling.py",
    "generation/test_quantised_targets.py",
    "soak/test_soak.py",
    "training/test_docs.py",
    "package/test_import_light.py",
    "evaluation/test_bench.py",
    "generation/test_compiled_drafters.py",
    "training/test_quantised.py",
    "hub/test_publish.py",
)


def pytest_collection_modifyitems(items):
    places = {Path(__file__).parent / name: place for place, name in enumerate(HEAVY)}
    items.sort(key=lambda item: places.get(item.path, len(HEAVY)))


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
