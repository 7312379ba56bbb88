"""Equal time: what a step takes decides how many there are."""

from dataclasses import replace

import pytest

from hf_mmspec.training.judging import study
from hf_mmspec.training.judging.pace import TIMED_STEPS, for_epochs, for_seconds, measured_pace, with_steps
from hf_mmspec.training.judging.study import Study
from hf_mmspec.training.learning.order import Entry, steps_of, training_order
from hf_mmspec.training.recipes import family_recipe, read_recipe

ENTRIES = [Entry(30, 30 - 8 * (i % 4 > 0)) for i in range(100)]
VISPEC = read_recipe(family_recipe("vispec"))  # half an epoch of text, then five


def steps(recipe, entries=ENTRIES):
    return [steps_of(stage, entries) for stage in recipe.stages]


@pytest.mark.parametrize("family", ["vispec", "vispec_paper", "msd", "flash"])
@pytest.mark.parametrize("count", [1, 2, 7, 500])
def test_steps_are_exact(family, count):
    recipe = read_recipe(family_recipe(family))
    made = with_steps(recipe, ENTRIES, {stage.name: count for stage in recipe.stages})
    assert steps(made) == [count] * len(made.stages)
    for stage in made.stages:
        assert len(training_order(stage, ENTRIES, 0)) == count * stage.batch_size


def test_seconds_are_shared_as_the_recipe_shares_epochs():
    assert steps(VISPEC) == [4, 32]
    for pace, seconds, expected in [
        ({"text": 1.0, "multimodal": 1.0}, 72, [8, 64]),
        ({"text": 2.0, "multimodal": 1.0}, 20, [2, 16]),
        ({"text": 9.0, "multimodal": 9.0}, 1, [1, 1]),
    ]:
        found = for_seconds(VISPEC, ENTRIES, pace, seconds)
        assert steps(found) == expected
    rest = replace(found, stages=VISPEC.stages)
    assert rest == VISPEC


def test_a_slow_step_means_fewer_of_them():
    fast, slow = (for_seconds(VISPEC, ENTRIES, {"text": s, "multimodal": s}, 100) for s in (0.5, 2.0))
    assert sum(steps(fast)) == pytest.approx(4 * sum(steps(slow)), rel=0.05)
    assert 2.0 * sum(steps(slow)) == pytest.approx(100, rel=0.05)


def test_epochs_are_the_same_for_all():
    for family in ("vispec", "eagle", "flash"):
        made = for_epochs(read_recipe(family_recipe(family)), ENTRIES, 2.0)
        assert sum(stage.epochs for stage in made.stages) == pytest.approx(2.0, abs=0.3)


def test_a_pace_is_measured_and_leaves_nothing(llava, tmp_path, monkeypatch):
    seen = []

    def train(run, *_):
        seen.append(run)
        raise KeyboardInterrupt

    monkeypatch.setattr(study, "train", train)
    work = tmp_path / "work"
    made = Study(*llava, "tiny", [], [], [], work, max_new_tokens=100, repetitions=1, held_out=9)
    with pytest.raises(KeyboardInterrupt):
        measured_pace(made, VISPEC, ENTRIES)
    (run,) = seen
    assert steps(run.recipe) == [TIMED_STEPS, TIMED_STEPS]
    assert not run.recipe.closed_form_start
    assert (run.held_out, run.max_new_tokens) == (1, 2)
    assert list(work.iterdir()) == []
