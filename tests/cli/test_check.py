"""`mmspec check` from outside, on folders: what fits, what does not and why, exit codes."""

import json
import re

import pytest

from hf_mmspec.evaluation import loading
from hf_mmspec.evaluation.fit import configs
from tests.evaluation.tiny import tiny_drafter, tiny_processor, tiny_target


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A target and its drafter, and a larger target of another width."""
    folder = tmp_path_factory.mktemp("models")
    target = tiny_target()
    for name, model in {"target": target, "larger": tiny_target(hidden_size=64)}.items():
        model.save_pretrained(folder / name)
        tiny_processor().save_pretrained(folder / name)
    tiny_drafter(target).save_pretrained(folder / "drafter")
    return folder


def lines(result):
    """Verdict by check; the check's name has 18 columns."""
    rows = [re.match(r"(ok|warn|FAIL)\s+(self-test, picture|.{18})", line) for line in result.output.splitlines()]
    return {row[2].strip(): row[1] for row in rows if row}


def test_a_pair_that_fits(run, folders):
    result = run("check", folders / "target", folders / "drafter", "--dtype", "float32")
    assert result.exit_code == 0, result.output
    found = lines(result)
    assert list(found) == [
        *("family", "sizes", "vocabulary", "layers", "attention", "positions", "images"),
        *("head", "fingerprint", "dtype", "weights"),
        *("self-test, text", "lossless, text", "self-test, picture", "lossless, picture", "expected speed"),
    ]
    assert "FAIL" not in found.values() and found["lossless, picture"] == "ok"
    assert result.output.splitlines()[-1] == "they fit" and len(result.output.splitlines()) < 40


def test_a_pair_that_does_not_fit_is_told_by_name_before_weights_are_loaded(run, folders, monkeypatch):
    monkeypatch.setattr(loading, "load_target", lambda *_: pytest.fail("the target was loaded"))
    result = run("check", folders / "larger", folders / "drafter")
    assert result.exit_code == 1
    assert [check for check, verdict in lines(result).items() if verdict == "FAIL"] == ["sizes"]
    words = " ".join(result.output.split())
    assert "for hidden size 32 but the target has 64" in words and "they do not fit" in words


def test_the_defaults_are_the_embedded_target_and_its_drafter(run, loaded, tiny_models, monkeypatch):
    monkeypatch.setattr(configs, "target_config", lambda model: tiny_models[0].config)
    monkeypatch.setattr("hf_mmspec.evaluation.fit.check.target_config", lambda model: tiny_models[0].config)
    monkeypatch.setattr("hf_mmspec.evaluation.fit.check.drafter_config", lambda name: tiny_models[2].config)
    assert run("check", "--dtype", "float32").exit_code == 0
    assert run("check", "embedded", "another").exit_code == 0
    assert loaded == [None, "the default drafter", None, "another"]


def test_a_name_that_is_markup_is_shown_as_it_is(run, folders, tmp_path):
    (tmp_path / "[red]x").symlink_to(folders / "drafter")
    assert "[red]x for" in run("check", folders / "larger", "[red]x").output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["target"], "give both"),
        (["target", "nowhere"], "nowhere"),
        (["nowhere", "drafter"], "nowhere"),
        (["drafter", "target"], "whole model, not a drafter"),
        (["target", "drafter", "--dtype", "int8"], "choose one of"),
    ],
)
def test_bad_input_is_one_line(run, folders, arguments, words, monkeypatch):
    monkeypatch.chdir(folders)
    result = run("check", *arguments)
    assert result.exit_code == 2 and words in result.stderr and result.stderr.count("\n") == 1


def test_a_config_with_an_unknown_field_is_one_line(run, folders, tmp_path):
    config = json.loads((folders / "drafter" / "config.json").read_text())
    (tmp_path / "newer").mkdir()
    (tmp_path / "newer" / "config.json").write_text(json.dumps({**config, "num_dreams": 2}))
    result = run("check", folders / "target", "newer")
    assert result.exit_code == 2 and "num_dreams" in result.stderr
