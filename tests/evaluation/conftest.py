"""Shared tiny models, made once: nothing in these tests changes them."""

import pytest

from .tiny import tiny_drafter, tiny_processor, tiny_target


@pytest.fixture(scope="session")
def processor():
    return tiny_processor()


@pytest.fixture(scope="session")
def target():
    return tiny_target()


@pytest.fixture(scope="session")
def drafter(target):
    return tiny_drafter(target)
