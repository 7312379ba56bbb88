"""The sdist and the wheel of this checkout, built once from a copy of it, and the wheel's files unpacked."""

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_BUILD = "from setuptools import build_meta; print(build_meta.build_{}({!r}))"
# Everything that git does not keep, and what no build needs.
_LEFT_OUT = shutil.ignore_patterns(
    ".git", ".venv*", ".*_cache", "__pycache__", "*.egg-info", "build", "dist", "outputs"
)


@pytest.fixture(scope="session")
def checkout(tmp_path_factory) -> Path:
    """A copy, so that a build finds no leftovers of another one and leaves none behind."""
    pytest.importorskip("setuptools", minversion="77", reason="what pyproject.toml builds with")
    return Path(shutil.copytree(ROOT, tmp_path_factory.mktemp("checkout") / "hf_mmspec", ignore=_LEFT_OUT))


def _build(kind: str, source: Path, folder: Path) -> Path:
    command = [sys.executable, "-c", _BUILD.format(kind, str(folder))]
    printed = subprocess.run(command, cwd=source, check=True, capture_output=True, text=True).stdout
    return folder / printed.splitlines()[-1]


@pytest.fixture(scope="session")
def sdist(checkout, tmp_path_factory) -> Path:
    return _build("sdist", checkout, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="session")
def wheel(sdist, tmp_path_factory) -> Path:
    """Built from the sdist, as pip builds one where it finds no wheel."""
    unpacked = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(unpacked)
    return _build("wheel", unpacked / sdist.name.removesuffix(".tar.gz"), tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def installed(wheel, tmp_path_factory) -> Path:
    """What pip would put into site-packages."""
    folder = tmp_path_factory.mktemp("site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder
