"""One target, its processor and a drafter, shared: nothing in these tests changes them."""

import pytest

from . import tiny


@pytest.fixture(scope="session")
def llava():
    return tiny.llava()


@pytest.fixture(scope="session")
def qwen():
    return tiny.qwen()


@pytest.fixture
def chat(llava):
    from hf_mmspec.chat import Chat

    return Chat(*llava, tiny.build_drafter("vispec", llava[0]))
