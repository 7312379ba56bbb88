"""Checkpoints of the published layouts, changed as a test likes, in a temporary folder."""

import json

import pytest

from tests.hub import published
from tests.hub.published import LAYOUTS


@pytest.fixture
def write(tmp_path):
    """`write(layout, change, file)`: the folder of a checkpoint; `change(config, tensors)` breaks it in place."""

    def write(layout, change=lambda config, tensors: None, file="safetensors", name=None):
        made = LAYOUTS[layout]()
        config, tensors = json.loads(json.dumps(made.config)), made.tensors()
        change(config, tensors)
        return published.save(tmp_path / "theirs" / (name or layout), config, tensors, file)

    return write
