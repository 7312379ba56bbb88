"""Killed with -9 wherever it hurts, and started again: the end is that of an undisturbed run."""

import json
import random

import datasets
import pytest
import torch
from safetensors.torch import load_file

from hf_mmspec.training.answers.store import AnswerSet
from tests.slow_parameters import slow
from tests.training.robustness import worker, world

KILLED = [-9]
TRAINING = "hf_mmspec.training"
TRAINER = f"{TRAINING}.learning.trainer.DrafterTrainer"


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory, finished):
    """Runs a training once and remembers it."""
    done = {}

    def run(family, *changes):
        if family not in done:
            done[family] = world.train_run(tmp_path_factory.mktemp(family), family, *changes, save_minutes=0)
            assert worker.call(worker.train, done[family], [finished]) == [0]
        return done[family]

    return run


def test_distil_killed_twice_has_every_row_once(table, tmp_path, finished):
    """In the middle of a shard's data, then between two shards."""
    out = tmp_path / "a"
    assert worker.call(worker.distil, table, out, ("datasets.arrow_writer.ArrowWriter.write_table", 2)) == KILLED
    assert len(AnswerSet.load(out).rows) == 8 and list(out.glob(".partial-*/*"))
    assert worker.call(worker.distil, table, out, (f"{TRAINING}.answers.distil.Progress", 1)) == KILLED
    assert len(AnswerSet.load(out).rows) == 16
    assert worker.call(worker.distil, table, out) == [0]
    assert datasets.load_from_disk(str(out)).to_list() == datasets.load_from_disk(str(finished)).to_list()
    assert not list(out.glob(".*"))


# noise in two stages with their hand-over, dropout and the drafter's own tokens, and its own proposals
FAMILIES = {
    "vispec": ["stages.*.noise=0.2"],
    "flash": ["stages.*.epochs=2"],
    "msd": [
        'stages.0.on_policy={"share": 0.5, "depth": 2}',
        "stages.0.text_until=0.1",
        "stages.0.learning_rate=0.05",
        "stages.0.epochs=2",
    ],
}


@pytest.mark.parametrize("kills", [2, slow(3)])
@pytest.mark.parametrize("family", FAMILIES)
def test_training_killed_several_times_ends_as_undisturbed(tmp_path, finished, undisturbed, family, kills):
    whole = undisturbed(family, *FAMILIES[family])
    run = world.train_run(tmp_path, family, *FAMILIES[family], save_minutes=0)
    steps = random.Random(family).sample(range(1, 4), kills)
    steps_done = 0
    for step in steps:  # so many optimiser steps after it went on: before, behind or in a stage's end
        assert worker.call(worker.train, run, [finished], (f"{TRAINER}.training_step", step + 1)) == KILLED
        assert len(world.histories(run)) > steps_done, "it began anew"
        steps_done = len(world.histories(run))
    assert worker.call(worker.train, run, [finished]) == [0]
    assert_same(run, whole)


@pytest.mark.parametrize(
    ("name", "number"),
    [("_save_optimizer_and_scheduler", 1), ("_save_rng_state", 3), ("_determine_best_metric", 1)],
)
def test_training_killed_in_a_checkpoint_ends_as_undisturbed(tmp_path, finished, undisturbed, name, number):
    """Half a folder: without the optimiser, without the trainer's state; and behind a measurement. A
    first checkpoint that is not whole is none, so that the closed-form start is made again."""
    whole = undisturbed("vispec", *FAMILIES["vispec"])
    run = world.train_run(tmp_path, "vispec", *FAMILIES["vispec"], save_minutes=0)
    assert worker.call(worker.train, run, [finished], (f"{TRAINER}.{name}", number)) == KILLED
    assert worker.call(worker.train, run, [finished]) == [0]
    assert_same(run, whole)


def assert_same(run, whole):
    expected = world.histories(whole)
    assert {name for _, _, name in expected} == {"loss", "grad_norm", "learning_rate", "eval_acceptance_length"}
    assert len(expected) > 30
    assert world.histories(run) == expected
    weights, others = (load_file(each.out / "model.safetensors") for each in (run, whole))
    assert all(torch.equal(weights[name], others[name]) for name in {*weights, *others})
    results, other_results = (json.loads((each.out / "training.json").read_text())["results"] for each in (run, whole))
    assert results == other_results
