"""docs/publishing.md: every block of it runs, against a Hub on the loopback."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

from typer.testing import CliRunner

from hf_mmspec.cli import app
from hf_mmspec.hub.publication import _ALWAYS
from tests.generation import tiny
from tests.generation.test_every_family import build
from tests.hub.stub_hub import TOKEN
from tests.hub.test_stranger import environment

PAGE = (Path(__file__).parents[2] / "docs/publishing.md").read_text()
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", PAGE, re.DOTALL)


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
    without_package(alone, target, inputs, hub, tmp_path)


def without_package(code, target, inputs, hub, tmp_path):
    """The last block runs where the modules of the repository are downloaded to a place of their own."""
    import torch

    target.save_pretrained(tmp_path / "target")
    torch.save(inputs, tmp_path / "inputs.pt")
    script = (
        "import torch\nfrom transformers import LlavaForConditionalGeneration\n"
        "target = LlavaForConditionalGeneration.from_pretrained('target').eval()\n"
        f"inputs = torch.load('inputs.pt')\n{code}\nprint(output.tolist())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment(hub, tmp_path, HF_TOKEN=TOKEN),
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(target.generate(**inputs).tolist())


def test_the_page_names_what_is_always_sent():
    assert all(f"`{name}`" in PAGE for name in _ALWAYS)
