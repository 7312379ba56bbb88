"""Commands run on tiny models in place of the embedded default."""

import pytest
from typer.testing import CliRunner

from hf_mmspec import auto
from hf_mmspec.cli import app
from hf_mmspec.evaluation import loading
from tests.evaluation.tiny import tiny_drafter, tiny_processor, tiny_target


@pytest.fixture(scope="session")
def tiny_models():
    target = tiny_target()
    return target, tiny_processor(), tiny_drafter(target)


@pytest.fixture
def loaded(tiny_models, monkeypatch):
    """Names of what was loaded; loading gives the tiny models, and drafters' names are only names."""
    names = []
    target, processor, drafter = tiny_models
    monkeypatch.setattr(
        loading,
        "load_target",
        lambda model=None, dtype="auto", quantize=None: names.append(model) or (target, processor),
    )
    monkeypatch.setattr(loading, "load_drafter", lambda name, target: names.append(name) or drafter)
    monkeypatch.setattr(auto, "read_config", lambda *_: {"model_type": "vispec"})
    monkeypatch.setattr(loading, "default_drafter", lambda: "the default drafter")
    return names


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Runs `mmspec` in an empty folder; an exception that reaches the user fails the test."""
    monkeypatch.chdir(tmp_path)

    def invoke(*arguments):
        result = CliRunner().invoke(app, [str(each) for each in arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return invoke
