"""One table, one target and one set of answers for all tests here; whoever damages answers takes a copy."""

import shutil

import datasets
import pytest
import torch
from transformers.utils import logging

from tests.evaluation.tiny import tiny_processor, tiny_target
from tests.training.robustness import world


@pytest.fixture(autouse=True, scope="session")
def quiet():
    """No progress bars of libraries, and one thread: the models are too small for more."""
    datasets.disable_progress_bars()
    logging.disable_progress_bar()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tiny():
    return tiny_target(), tiny_processor()


@pytest.fixture(scope="session")
def target(tiny):
    return tiny[0]


@pytest.fixture(scope="session")
def processor(tiny):
    return tiny[1]


@pytest.fixture(scope="session")
def table(tmp_path_factory):
    return world.write_table(tmp_path_factory.mktemp("table"))


@pytest.fixture(scope="session")
def finished(tmp_path_factory, table, target, processor):
    """A finished distillation; not to be changed."""
    folder = tmp_path_factory.mktemp("answers") / "answers"
    world.answered(table, folder, target, processor)
    return folder


@pytest.fixture
def answers(tmp_path, finished):
    """A copy of it, to be damaged."""
    return shutil.copytree(finished, tmp_path / "answers")
