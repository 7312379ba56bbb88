"""The conformance suite: every case of the folder, by family. The checks themselves are one file per family."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.golden import eagle2, eagle3, vispec
from tests.golden.case import Case
from tests.golden.conftest import OWN_CASES

CHECKS = {"eagle2": eagle2.check, "eagle3": eagle3.check, "msd": eagle2.check, "vispec": vispec.check}
NOT_BUILT_YET = {"flash"}


def test_golden(case: Case):
    if case.family in NOT_BUILT_YET:
        pytest.skip(f"no drafter of family {case.family!r} yet: {case.name} was NOT checked")
    assert case.family in CHECKS, f"{case.family!r} is no family of this format (known: {sorted(CHECKS)})"
    CHECKS[case.family](case)
    case.insist_all_used()


OWN = OWN_CASES / "vispec" / "vispec_img1.safetensors"


@pytest.fixture
def altered(tmp_path):
    """Writes a copy of a case with some tensors changed."""

    def write(change) -> Case:
        tensors = load_file(OWN)
        change(tensors)
        file = tmp_path / "vispec" / OWN.name
        file.parent.mkdir(exist_ok=True)
        save_file(tensors, file)
        file.with_suffix(".config.json").write_text(OWN.with_suffix(".config.json").read_text())
        return Case.read(file)

    return write


@pytest.mark.parametrize("name", sorted(load_file(OWN)))
def test_a_renamed_tensor_fails(altered, name):
    case = altered(lambda tensors: tensors.update({name + "_renamed": tensors.pop(name)}))
    with pytest.raises((AssertionError, RuntimeError, pytest.fail.Exception)):
        vispec.check(case)
        case.insist_all_used()


@pytest.mark.parametrize("name", sorted(name for name in load_file(OWN) if not name.startswith(("weights", "in/"))))
def test_a_wrong_number_fails(altered, name):
    case = altered(lambda tensors: tensors.update({name: tensors[name] + torch.ones_like(tensors[name])}))
    with pytest.raises(AssertionError):
        vispec.check(case)
