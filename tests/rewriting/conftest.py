"""A tiny target that reads pictures and writes bytes, its processor, and rewriters with and without a drafter."""

import pytest

from hf_mmspec import PromptRewriter
from tests.evaluation.tiny import tiny_drafter, tiny_processor, tiny_target

NEW = 120


@pytest.fixture(scope="session")
def processor():
    return tiny_processor()


@pytest.fixture(scope="session")
def target():
    return tiny_target(max_position_embeddings=4096)


@pytest.fixture(scope="session")
def plain(target, processor):
    return PromptRewriter(target, processor, thinking=12, max_new_tokens=NEW)


@pytest.fixture(scope="session")
def drafted(target, processor):
    return PromptRewriter(target, processor, tiny_drafter(target), thinking=12, max_new_tokens=NEW)
