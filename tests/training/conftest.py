"""Tiny targets with their processors, made once; nothing in these tests changes them."""

import pytest

from tests.evaluation.tiny import tiny_processor, tiny_target
from tests.training.tiny_qwen import qwen_processor, qwen_target


@pytest.fixture(scope="session")
def llava():
    """A LLaVA of two layers, 144 visual tokens a picture."""
    return tiny_target(), tiny_processor()


@pytest.fixture(scope="session")
def qwen():
    """A Qwen2.5-VL of three layers, a few visual tokens a picture; as sure of its tokens as a trained model is."""
    processor = qwen_processor()
    target = qwen_target(processor, num_hidden_layers=3)
    target.lm_head.weight.data.mul_(4)
    return target, processor


@pytest.fixture(scope="session", params=["llava", "qwen"])
def pair(request):
    """Each target with its processor."""
    return request.getfixturevalue(request.param)
