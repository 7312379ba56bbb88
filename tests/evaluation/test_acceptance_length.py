"""Acceptance length as a metric of the `evaluate` library, loaded from the file as a user would, offline."""

import pytest

from hf_mmspec.evaluation.acceptance import METRIC, from_rounds

evaluate = pytest.importorskip("evaluate")


@pytest.fixture(scope="module")
def metric(tmp_path_factory):
    cache = tmp_path_factory.mktemp("modules")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_EVALUATE_OFFLINE", "1")
        patch.setattr("evaluate.loading.init_dynamic_modules", lambda *_: _modules(cache, patch))
        yield evaluate.load(METRIC, cache_dir=str(cache))


def _modules(folder, patch):
    package = folder / "evaluate_modules"
    package.mkdir(exist_ok=True)
    (package / "__init__.py").touch()
    patch.syspath_prepend(str(folder))
    return str(package)


def test_it_counts_as_the_report_does(metric):
    accepted = [[2, 0, 5], [1], []]
    found = metric.compute(accepted=accepted)
    assert found == from_rounds(accepted)
    assert found["acceptance_length"] == 3.0 and found["accepted_drafts"] == 2.0 and found["rounds"] == 4
    assert found["acceptance_by_position"] == pytest.approx([1 / 2, 1])
    assert found["accepted_histogram"] == {"0": 1, "1": 1, "2": 1, "5": 1}


def test_batches_add_up(metric):
    metric.add_batch(accepted=[[2, 0], [1]])
    metric.add(accepted=[5])
    assert metric.compute()["acceptance_length"] == 3.0


def test_without_any_round_there_is_no_length(metric):
    found = metric.compute(accepted=[[]])
    assert found["acceptance_length"] is None and found["acceptance_by_position"] == []


def test_what_is_no_list_of_numbers_is_refused(metric):
    with pytest.raises(ValueError, match="accepted"):
        metric.compute(accepted=[["many"]])
