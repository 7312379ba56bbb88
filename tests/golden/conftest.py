"""`--golden DIR`: run the conformance suite on any folder of recorded tensors (default: the cases kept here)."""

from pathlib import Path

import pytest

from tests.golden.case import Case

OWN_CASES = Path(__file__).parent / "cases"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--golden", default=str(OWN_CASES), help="folder of golden cases: <family>/<case>.safetensors")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each case of the folder; a folder without cases is an error, not an empty run."""
    if "golden_file" not in metafunc.fixturenames:
        return
    folder = Path(metafunc.config.getoption("--golden", default=str(OWN_CASES)))
    files = sorted(folder.glob("*/*.safetensors"))
    if not files:
        raise pytest.UsageError(f"--golden {folder}: no <family>/<case>.safetensors in there")
    metafunc.parametrize("golden_file", files, ids=[f"{file.parent.name}/{file.stem}" for file in files])


@pytest.fixture
def case(golden_file: Path) -> Case:
    return Case.read(golden_file)
