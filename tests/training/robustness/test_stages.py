"""What happens before, between and behind the stages of a training."""

import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from hf_mmspec.training.features.reading import Reader
from tests.training.robustness import world


@pytest.fixture(scope="module")
def whole(tmp_path_factory, finished, target, processor):
    """A finished training in two stages; not to be changed."""
    run = world.train_run(tmp_path_factory.mktemp("whole"))
    world.trained(run, target, processor, finished)
    return run


def test_no_more_records_are_read_at_once_than_in_a_step(tmp_path, target, processor, finished, monkeypatch):
    """Neither for the closed-form start nor for the ranks at the end: memory that is enough for a step is enough."""
    sizes, read = [], Reader.read
    monkeypatch.setattr(Reader, "read", lambda self, answered: sizes.append(len(answered)) or read(self, answered))
    run = world.train_run(tmp_path, "eagle", "closed_form_start=true", accumulate=2)
    world.trained(run, target, processor, finished)
    assert max(sizes) == 2


def test_a_finished_stage_without_its_checkpoints_is_not_trained_again(whole, tmp_path, target, processor, finished):
    """They take room, and all that they left is in the later stage's."""
    run = world.train_run(tmp_path)
    shutil.copytree(whole.work, run.work)
    shutil.rmtree(run.work / "0-text")
    said = world.trained(run, target, processor, finished)
    assert "stage 'text': its checkpoints are gone, and not needed: a later stage has begun" in said
    assert not (run.work / "0-text").exists()
    weights, expected = (load_file(each.out / "model.safetensors") for each in (run, whole))
    assert all(torch.equal(weights[name], expected[name]) for name in {*weights, *expected})


@pytest.mark.parametrize("target_name, asks", [("tiny", False), ("/models/tiny", False), ("org/tiny-tuned", True)])
def test_answers_of_a_target_of_another_name_are_asked_about(
    whole, tmp_path, target, processor, finished, target_name, asks
):
    """Embeddings and head of a finetuned model may be those of the model that it was made from."""
    run = replace(world.train_run(tmp_path), target=target_name, license="mit")
    shutil.copytree(whole.work, run.work)
    said = world.trained(run, target, processor, finished)
    line = f"answers: answers of tiny, now read by {target_name}: are these the same weights?"
    assert (line in said) == asks
    assert "license: mit" in (run.out / "README.md").read_text()
