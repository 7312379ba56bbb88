"""The conformance suite: every case of the folder, by family. The checks themselves are one file per family."""

import pytest
import torch

from tests.golden import eagle1, eagle2, eagle3, flash, vispec
from tests.golden.case import Case
from tests.golden.conftest import OWN_CASES
from tests.slow_parameters import others_slow


def check_flash(case: Case) -> None:
    """The folder holds two drafters."""
    return eagle1.check(case) if case.name.startswith("eagle1") else flash.check(case)


CHECKS = {
    "eagle2": eagle2.check,
    "eagle3": eagle3.check,
    "flash": check_flash,
    "msd": eagle2.check,
    "vispec": vispec.check,
}


def test_golden(case: Case):
    assert case.family in CHECKS, f"{case.family!r} is no family of this format (known: {sorted(CHECKS)})"
    CHECKS[case.family](case)
    case.insist_all_used()


# one case of each kind of check
SAMPLES = (
    "eagle3/eagle3_d2t",
    "eagle3/eagle3_ttt",
    "flash/eagle1",
    "flash/specflash_2img",
    "msd/llava_img9",
    "msd/llava_train_batch",
    "vispec/vispec_img1",
)
INPUTS = (
    "in/",
    "in.",
    "sd.",
    "weights/",
    "head.weight",
    "lm_head.weight",
    "c.in.",
    "d.tree_logits",
    "round2/committed",
    "batch/",
)


def fails(sample: str, change) -> bool:
    """Whether the check complains about a copy of the case with some tensors changed."""
    case = Case.read(OWN_CASES / f"{sample}.safetensors")
    change(case.tensors)
    try:
        CHECKS[case.family](case)
        case.insist_all_used()
    except (AssertionError, RuntimeError, IndexError, pytest.fail.Exception):
        return True
    return False


# what is renamed is missing as well, which the next test looks at in every sample
@pytest.mark.parametrize("sample", others_slow(SAMPLES, ["eagle3/eagle3_d2t"]))
def test_a_renamed_tensor_fails(sample):
    names = sorted(Case.read(OWN_CASES / f"{sample}.safetensors").tensors)
    unnoticed = [n for n in names if not fails(sample, lambda t, n=n: t.update({n + "_renamed": t.pop(n)}))]
    assert not unnoticed


@pytest.mark.parametrize("sample", SAMPLES)
def test_a_missing_tensor_fails(sample):
    names = sorted(Case.read(OWN_CASES / f"{sample}.safetensors").tensors)
    assert not fails(sample, lambda tensors: None)
    unnoticed = [n for n in names if not fails(sample, lambda t, n=n: t.pop(n))]
    assert not unnoticed


@pytest.mark.parametrize("sample", SAMPLES)
def test_a_wrong_number_fails(sample):
    names = [n for n in Case.read(OWN_CASES / f"{sample}.safetensors").tensors if not n.startswith(INPUTS)]
    assert names
    unnoticed = [n for n in names if not fails(sample, lambda t, n=n: t.update({n: t[n] + torch.ones_like(t[n])}))]
    assert not unnoticed
