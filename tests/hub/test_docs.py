"""docs/publishing.md: every block of it runs, against a Hub on the loopback."""

import re
import shlex
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from transformers import dynamic_module_utils
from typer.testing import CliRunner

from hf_mmspec.cli import app
from hf_mmspec.hub.publication import _ALWAYS
from tests.generation import tiny
from tests.generation.test_every_family import build
from tests.hub.stub_hub import TOKEN

PAGE = (Path(__file__).parents[2] / "docs/publishing.md").read_text()
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", PAGE, re.DOTALL)


@contextmanager
def fresh_remote_code(folder):
    """Code of repositories is downloaded to `folder`, and forgotten afterwards; gives what says which modules ran."""

    def loaded():
        return {name for name in sys.modules if name.partition(".")[0] == "transformers_modules"}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [*sys.path])
        patch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(folder))
        assert not loaded()
        try:
            yield loaded
        finally:
            for name in loaded():
                del sys.modules[name]


def test_the_pages_commands_and_code_run(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    target, inputs = tiny.llava(), {**tiny.llava_prompt(), "max_new_tokens": 8, "do_sample": False, "draft_depth": 3}
    names = {"target": target, "inputs": inputs, "drafter": build("vispec", target)}
    names["drafter"].save_pretrained(tmp_path / "FOLDER")
    (tmp_path / "FOLDER" / "README.md").write_text("# A drafter")
    (command,), (push, use, alone) = ([text for kind, text in BLOCKS if kind == wanted] for wanted in ("", "python"))
    monkeypatch.chdir(tmp_path)
    options = shlex.split(command.replace("BRANCH", "next").replace("T]", f"{TOKEN}]").translate({91: None, 93: None}))
    for taken in (options[1:], [option for option in options[1:] if option != "--dry-run"]):
        result = CliRunner().invoke(app, taken)
        assert result.exit_code == 0, result.output
    assert hub.repositories["ORG/NAME"].branches.keys() == {"main", "next"}
    exec(push, names)
    exec(use, names)
    del inputs["draft_depth"]
    assert names["output"].tolist() == target.generate(**inputs).tolist()
    with fresh_remote_code(tmp_path / "modules") as loaded:
        exec(alone, names)
        assert any(name.endswith(".custom_generate.generate") for name in loaded())
    assert names["output"].tolist() == target.generate(**inputs).tolist()


def test_the_page_names_what_is_always_sent():
    assert all(f"`{name}`" in PAGE for name in _ALWAYS)
