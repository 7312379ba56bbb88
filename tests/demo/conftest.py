"""What several tests of the embedded default share: reading SmolLM2's tokenizer takes seconds, so it is read once."""

import pytest

from hf_mmspec.demo.model.base_model import MissingBaseError, find_gguf
from hf_mmspec.demo.model.processor import build_processor, build_tokenizer


@pytest.fixture(scope="session")
def tokenizer():
    """SmolLM2's tokenizer with the image token; skips where the package is not installed."""
    try:
        return build_tokenizer(find_gguf())
    except MissingBaseError as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def processor(tokenizer):
    """The embedded default's processor."""
    return build_processor(tokenizer)
