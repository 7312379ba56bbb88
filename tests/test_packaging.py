"""What a stranger's machine depends on: a build that holds every file, and a torch that must not be replaced."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

tomllib = pytest.importorskip("tomllib", reason="Python 3.11 or newer")

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CONSTRAINTS = runpy.run_path(str(ROOT / ".ci/constraints.py"))


def _sources() -> set[Path]:
    """What belongs in a wheel: modules and assets, `modeling` under the name it is imported by."""
    package, modeling = ROOT / "hf_mmspec", ROOT / "modeling"
    kinds = ("*.py", "*.yaml", "assets/*")
    found = {path.relative_to(ROOT) for kind in kinds for path in package.rglob(kind)}
    return found | {Path("hf_mmspec") / path.relative_to(ROOT) for path in modeling.glob("*.py")}


def test_a_build_holds_every_module_and_asset(tmp_path):
    pytest.importorskip("setuptools", minversion="77", reason="what pyproject.toml builds with")
    commands = ["egg_info", "--egg-base", tmp_path, "build_py", "--build-lib", tmp_path / "built"]
    build = "import setuptools; setuptools.setup()"
    subprocess.run([sys.executable, "-c", build, "--quiet", *commands], cwd=ROOT, check=True, capture_output=True)
    built = {path.relative_to(tmp_path / "built") for path in (tmp_path / "built").rglob("*") if path.is_file()}
    assert not _sources() - built
    assert Path("hf_mmspec/demo/model/assets/target.safetensors") in built


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
