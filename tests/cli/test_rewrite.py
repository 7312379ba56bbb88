"""`mmspec rewrite` with small folders of a target and a drafter."""

import json

import pytest
from PIL import Image, ImageColor
from typer.testing import CliRunner

from hf_mmspec.cli import app
from hf_mmspec.console.compare import Origin
from hf_mmspec.console.picture import COLOURS
from hf_mmspec.rewriting.instruction import FIELDS
from hf_mmspec.rewriting.rewrite import Rewrite
from tests.evaluation.tiny import tiny_drafter, tiny_processor, tiny_target


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    target = tiny_target()
    target.save_pretrained(folder / "target")
    tiny_processor().save_pretrained(folder / "target")
    tiny_drafter(target).save_pretrained(folder / "drafter")
    Image.new("RGB", (30, 20), "green").save(folder / "sofa.png")
    return folder


def run(folder, *arguments):
    options = ["--model", str(folder / "target"), "--dtype", "float32", "--thinking", "2", "--max-new-tokens", "105"]
    return CliRunner().invoke(app, ["rewrite", *arguments, *options])


def test_json_is_one_line_and_the_drafter_changes_nothing(folder):
    ask = ["a cat on my sofa", "--image", str(folder / "sofa.png"), "--json"]
    plain, drafted = run(folder, *ask), run(folder, *ask, "--drafter", str(folder / "drafter"))
    assert plain.exit_code == drafted.exit_code == 0, plain.output + drafted.output
    assert plain.stdout == drafted.stdout and plain.stdout.count("\n") == 1
    assert Rewrite.model_validate_json(plain.stdout).to_line() == plain.stdout.rstrip("\n")
    assert list(json.loads(plain.stdout)) == list(FIELDS)


def test_fields_are_printed_by_name(folder):
    result = run(folder, "a cat", "--temperature", "0.8", "--drafter", str(folder / "drafter"))
    assert result.exit_code == 0, result.output
    assert [line.split()[0] for line in result.stdout.splitlines()] == list(FIELDS)


def test_the_request_is_drawn(folder, tmp_path):
    file = tmp_path / "new" / "request.png"
    ask = ["a cat", "--image", str(folder / "sofa.png"), "--json", "--draw", str(file)]
    result = run(folder, *ask, "--drafter", str(folder / "drafter"))
    assert result.exit_code == 0, result.output
    assert result.stdout == run(folder, *ask[:-2]).stdout
    assert "identical: yes" in " ".join(result.stderr.split())
    colours = {colour for _, colour in Image.open(file).convert("RGB").getcolors(1 << 20)}
    assert {ImageColor.getrgb(COLOURS[each]) for each in (Origin.TARGET, Origin.FORCED)} <= colours


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([" "], "the wish is empty"),
        (["a <image>"], "reads as a place for a picture"),
        (["a<|im_end|>"], "reads as a signal"),
        (["a cat", "--thinking", "90"], "give at least"),
        (["a cat", "--drafter", "nowhere/at/all"], "nowhere/at/all"),
        (["a cat", "--draw", "request.png"], "nothing to compare without a drafter"),
    ],
)
def test_bad_input_is_one_line(arguments, said, folder):
    result = run(folder, *arguments)
    if "--thinking" in arguments:
        result = CliRunner().invoke(
            app, ["rewrite", *arguments, "--model", str(folder / "target"), "--max-new-tokens", "105"]
        )
    assert result.exit_code == 2 and said in " ".join(result.output.split()), result.output
    assert "Traceback" not in result.output


def test_a_missing_package_is_named(folder, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "llguidance", None)
    result = run(folder, "a cat")
    assert result.exit_code == 2 and "llguidance" in result.output and "[rewrite]" in result.output
