"""`mmspec distil` and `mmspec train` refuse what cannot be in one line and exit code 2, before a model is loaded."""

import shutil

import pytest
from typer.testing import CliRunner

from hf_mmspec.cli import app
from hf_mmspec.evaluation import loading
from tests.training.robustness import world


@pytest.fixture
def run(monkeypatch, tmp_path, table, finished):
    """Runs a command in a folder with prompts and answers; an exception that reaches the user fails the test."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(table.parent, "prompts")
    shutil.copytree(finished, "answers")

    def invoke(*arguments):
        result = CliRunner().invoke(app, [str(each) for each in arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return invoke


@pytest.fixture
def no_model(monkeypatch):
    monkeypatch.setattr(loading, "load_target", lambda *_: pytest.fail("a model was loaded"))


DISTIL = {
    "a missing folder": (["--data", "./nowhere"], "nowhere: no such file or folder"),
    "a missing table": (["--data", "nowhere.jsonl"], "nowhere.jsonl: no such file or folder"),
    "a missing column": (["--prompt-column", "ask"], "ask"),
    "a missing folder of pictures": (["--pictures", "nowhere"], "nowhere: no such folder of pictures"),
    "an endless source": (["--data", "embedded:scene"], "--limit"),
    "an unknown family": (["--features", "foo"], "unknown family 'foo'"),
    "a missing recipe": (["--features", "foo.yaml"], "foo.yaml: no such recipe"),
    "an unknown dtype": (["--dtype", "float8"], "--dtype float8: choose one of"),
    "an unknown dtype of states": (["--features-dtype", "x"], "dtype x: choose one of"),
    "missing answers": (["--answers", "nowhere.jsonl"], "nowhere.jsonl: no file of answers"),
    "a folder in use": (["--out", "prompts"], "prompts is not empty and holds no answers"),
    "a damaged folder": (["--out", "damaged"], "distil.json: damaged"),
}


@pytest.mark.parametrize("name", DISTIL)
def test_distil_refuses(run, no_model, tmp_path, name):
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "distil.json").write_text("{")
    changed, match = DISTIL[name]
    options = {"--data": "prompts/prompts.jsonl", "--out": "new", **dict([changed])}
    refused(run("distil", *(part for pair in options.items() for part in pair)), match)
    assert not (tmp_path / "new").exists()


def test_distil_reads_a_revision_of_a_hub_data_set(run, no_model, monkeypatch):
    asked = []
    monkeypatch.setattr("datasets.load_dataset", lambda *_, **options: asked.append(options) or 1 / 0)
    refused(run("distil", "--data", "org/prompts", "--out", "new", "--revision", "abc"), "org/prompts")
    assert asked[0]["revision"] == "abc"


TRAIN = {
    "an unknown family": (["--family", "x"], "--family x: choose one of vispec"),
    "no path": (["--set", "nonsense"], "'nonsense': write path=value"),
    "an unknown field": (["--set", "stages.0.nonsense=1"], "unknown field(s) nonsense"),
    "no such stage": (["--set", "stages.9.epochs=1"], "there is no '9' to change"),
    "a value of another kind": (["--set", "stages.0.epochs=many"], "epochs"),
    "no YAML": (["--set", "stages.0.epochs=["], "'stages.0.epochs=[': the value is not YAML"),
    "an unknown loss": (["--set", "stages.0.loss={nonsense: 1}"], "choose from soft_cross_entropy"),
    "an unknown schedule": (["--set", "stages.0.schedule=nonsense"], "schedule"),
    "an unknown place of states": (["--features", "foo"], "--features foo: choose one of auto, stored, live"),
    "missing answers": (["--data", "nowhere"], "nowhere: no answers in there"),
    "prompts for answers": (["--data", "prompts"], "prompts: no answers in there"),
    "missing validation": (["--val", "nowhere"], "nowhere: no answers in there"),
    "a missing recipe": (["--recipe", "nowhere.yaml"], "nowhere.yaml: no such recipe"),
    "another family's recipe": (["--recipe", "flash.yaml"], "but the recipe is one of family flash"),
    "no recipe": (["--recipe", "list.yaml"], "a recipe is a mapping"),
    "an unknown precision": (["--precision", "fp8"], "--precision fp8: choose one of auto, bf16, fp32"),
    "an unknown reporter": (["--report-to", "pigeon"], "--report-to pigeon: choose one of none, all"),
    "an unknown dtype": (["--dtype", "float8"], "--dtype float8: choose one of"),
    "a folder in use": (["--out", "prompts"], "prompts holds something else: give a new folder"),
    "a folder without a name": (["--out", "."], "--out .: give a folder by its own name"),
}


@pytest.mark.parametrize("name", TRAIN)
def test_train_refuses(run, no_model, tmp_path, name):
    shutil.copy(world.family_recipe("flash"), tmp_path / "flash.yaml")
    (tmp_path / "list.yaml").write_text("- 1\n")
    changed, match = TRAIN[name]
    options = {"--family": "vispec", "--data": "answers", "--out": "new", **dict([changed])}
    refused(run("train", *(part for pair in options.items() for part in pair)), match)
    assert not (tmp_path / "new").exists() and not (tmp_path / "new-work").exists()


def refused(result, match):
    assert result.exit_code == 2, result.output
    assert result.stderr.count("\n") == 1 and match in result.stderr, result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("options", [["--limit", "0"], ["--batch-size", "0"], ["--max-skipped", "2"]])
def test_numbers_out_of_range_are_refused(run, no_model, options):
    assert run("distil", "--data", "prompts", "--out", "new", *options).exit_code == 2


def test_answers_without_a_round_are_refused(run, no_model):
    """The prefill gives the first token: L of one token would always be 0."""
    answers = ("--data", "answers", "--out", "new")
    assert run("train", "--family", "vispec", *answers, "--max-new-tokens", "1").exit_code == 2


def test_the_license_is_the_users_to_say(run, monkeypatch, target, processor):
    monkeypatch.setattr(loading, "load_target", lambda *_: (target, processor))
    asked = []
    monkeypatch.setattr("hf_mmspec.training.train.train", lambda run, *_: asked.append(run.license) or run.out)
    for options in ((), ("--license", "mit")):
        run("train", "--family", "eagle2", "--data", "answers", "--out", "new", *options)
    assert asked == [None, "mit"]


def test_a_target_that_does_not_fit_is_one_line(run, monkeypatch, processor):
    from tests.evaluation.tiny import tiny_target

    monkeypatch.setattr(loading, "load_target", lambda *_: (tiny_target(seed=1), processor))
    result = run("train", "--family", "eagle2", "--data", "answers", "--out", "new", "--held-out", 3)
    refused(result, "the model that is given: give the same --model, or distil again")
