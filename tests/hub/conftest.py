"""Checkpoints of the published layouts, changed as a test likes, in a temporary folder."""

import json

import pytest
from huggingface_hub import constants
from transformers.utils import hub as transformers_hub

from tests.hub import published
from tests.hub.published import LAYOUTS
from tests.hub.stub_hub import StubHub


@pytest.fixture
def write(tmp_path):
    """`write(layout, change, file)`: the folder of a checkpoint; `change(config, tensors)` breaks it in place."""

    def write(layout, change=lambda config, tensors: None, file="safetensors", name=None):
        made = LAYOUTS[layout]()
        config, tensors = json.loads(json.dumps(made.config)), made.tensors()
        change(config, tensors)
        return published.save(tmp_path / "theirs" / (name or layout), config, tensors, file)

    return write


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A Hub on the loopback, which huggingface_hub's client talks to, with an empty cache and no token."""
    (tmp_path / "hub").mkdir()
    with StubHub(tmp_path / "hub") as stub:
        monkeypatch.setattr(constants, "ENDPOINT", stub.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", stub.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no token"))
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.setattr(transformers_hub, "_hf_api", None)  # it remembers the Hub's address
        yield stub
