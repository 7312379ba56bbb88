"""docs/training.md: every block of it runs, on a tiny model and with short answers; what docs/making-the-models.md
ran took hours and is only accepted."""

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from hf_mmspec.cli import app
from hf_mmspec.evaluation import loading
from hf_mmspec.training.recipes.recipe import make_recipe
from tests.evaluation.tiny import tiny_processor, tiny_target
from tests.training.pictures import picture_folder

DOCS = Path(__file__).parents[2] / "docs"
BLOCKS, MAKING = (
    re.findall(r"```(\w*)\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    for page in ("training.md", "making-the-models.md")
)
# shorter than a user's, so that the page runs in a minute
SHORTER = {
    "distil": ["--max-new-tokens", "12"],
    "train": [
        *("--max-new-tokens", "12", "--held-out", "4", "--set", "evaluations=1"),
        *("--set", "stages.*.epochs=0.5", "--set", "stages.*.batch_size=4"),
    ],
    "bench": ["--max-new-tokens", "12", "--repetitions", "1", "--no-memory"],
}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder like the page's, and a tiny target under the name that it uses."""
    model = tiny_target(), tiny_processor()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loading, "load_target", lambda *_: model)
    monkeypatch.setattr("transformers.AutoModelForImageTextToText.from_pretrained", lambda _: model[0])
    picture_folder(tmp_path / "pictures")
    (tmp_path / "pictures" / "prompts.csv").unlink()
    rows = [json.loads(line) for kind, text in BLOCKS if kind == "json" for line in text.splitlines()]
    lines = [json.dumps({**row, "question": f"{row['question']} ({i})"}) for i in range(4) for row in rows]
    (tmp_path / "pictures" / "prompts.jsonl").write_text("\n".join(lines))
    return tmp_path


def commands(text):
    """What follows `mmspec`, or its name in several processes."""
    lines = text.replace("\\\n", " ").replace("torchrun --nproc-per-node 2 -m hf_mmspec ", "mmspec ").splitlines()
    return [shlex.split(line)[1:] for line in lines if line.startswith("mmspec ")]


def test_every_block_runs(place):
    ran = []
    for kind, text in BLOCKS:
        if kind == "bash":
            for arguments in commands(text):
                result = CliRunner().invoke(app, [*arguments, *SHORTER[arguments[0]]])
                assert result.exit_code == 0, (arguments, result.output, result.exception)
                ran.append(arguments[0])
        elif kind == "python":
            exec(text, {})
        elif kind == "yaml":
            (place / "recipe.yaml").write_text(text)
            assert make_recipe(yaml.safe_load(text), "the page").stages
            mine = ["train", "--family", "msd", "--recipe", "recipe.yaml", "--model", "m", "--data", "answers"]
            result = CliRunner().invoke(app, [*mine, "--out", "by-recipe", *SHORTER["train"]])
            assert result.exit_code == 0, (result.output, result.exception)
    assert ran == ["distil", "train", "bench", "train"]


def test_what_is_too_long_to_run_is_at_least_accepted():
    """The commands that make the committed drafters: their options exist."""
    known = {
        name: CliRunner().invoke(app, [name, "--help"], terminal_width=300).output for name in ("distil", "train")
    }
    found = [arguments for kind, text in [*BLOCKS, *MAKING] if not kind for arguments in commands(text)]
    first, others, packed = ["distil", "distil", "train"], ["distil", "distil", "train"], ["distil", "train", "train"]
    assert [arguments[0] for arguments in found] == ["distil", *first, *others, *packed]
    for arguments in found:
        for option in (word for word in arguments if word.startswith("--")):
            assert option in known[arguments[0]], option
