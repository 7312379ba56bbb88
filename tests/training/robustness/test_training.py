"""Trainings that are disturbed in their own process: full disks, damaged checkpoints, losses that are no numbers; and
what a training leaves behind of itself."""

import errno
import math
import shutil
from types import SimpleNamespace

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import TrainingArguments

from hf_mmspec.training.answers.store import AnswerSet
from hf_mmspec.training.features.reading import Reader
from hf_mmspec.training.features.source import RecordSource
from hf_mmspec.training.learning.collator import IGNORED, collate
from hf_mmspec.training.learning.drafter_with_loss import DrafterWithLoss
from hf_mmspec.training.learning.trainer import DrafterTrainer, NoNumberError, last_checkpoint, training_arguments
from tests.training.robustness import world


@pytest.fixture(scope="module")
def whole(tmp_path_factory, finished, target, processor):
    """A finished training with a checkpoint for every step; not to be changed."""
    run = world.train_run(tmp_path_factory.mktemp("whole"), "eagle", save_minutes=0, trainer=EVERY)
    world.trained(run, target, processor, finished)
    return run


EVERY = {"save_total_limit": 9}


def again(whole, folder, changed):
    """A copy of a training whose checkpoints were changed, to go on from."""
    run = world.train_run(folder, "eagle", save_minutes=0, trainer=EVERY)
    shutil.copytree(whole.work, run.work)
    changed({int(each.name.split("-")[1]): each for each in run.work.glob("0-*/checkpoint-*")})
    return run


def cut(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


DAMAGE = {
    "weights cut": lambda last: cut(last / "model.safetensors"),
    "weights empty": lambda last: (last / "model.safetensors").write_bytes(b""),
    "weights gone": lambda last: (last / "model.safetensors").unlink(),
    "optimiser cut": lambda last: cut(last / "optimizer.pt"),
    "optimiser gone": lambda last: (last / "optimizer.pt").unlink(),
    "random numbers cut": lambda last: cut(last / "rng_state.pth"),
    "state cut": lambda last: cut(last / "trainer_state.json"),
    "state a list": lambda last: (last / "trainer_state.json").write_text("[]"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_gives_way_to_the_one_before(whole, tmp_path, target, processor, finished, damage):
    run = again(whole, tmp_path, lambda found: DAMAGE[damage](found[6]))
    assert last_checkpoint(run.work / "0-all").name == "checkpoint-5"
    world.trained(run, target, processor, finished)
    assert world.histories(run) == world.histories(whole)
    assert_same_weights(run, whole)


def test_without_its_best_checkpoint_a_training_goes_back_before_it(whole, tmp_path, target, processor, finished):
    """The first measurement was the best, and no later checkpoint is of use without it."""
    run = again(whole, tmp_path, lambda found: cut(found[3] / "model.safetensors"))
    assert last_checkpoint(run.work / "0-all").name == "checkpoint-2"
    world.trained(run, target, processor, finished)
    assert_same_weights(run, whole)


def test_a_work_folder_may_be_moved(whole, tmp_path, target, processor, finished):
    """What is there is not trained again, and the best weights are those in the new place."""
    run = again(whole, tmp_path, lambda found: None)
    hidden = whole.work.rename(whole.work.with_name("elsewhere"))
    try:
        said = world.trained(run, target, processor, finished)
    finally:
        hidden.rename(whole.work)
    assert any("checkpoint-6" in line for line in said)
    assert_same_weights(run, whole)


def assert_same_weights(run, whole):
    weights, others = (load_file(each.out / "model.safetensors") for each in (run, whole))
    assert all(torch.equal(weights[name], others[name]) for name in {*weights, *others})


FULL = {
    "of python": OSError(errno.ENOSPC, "No space left on device"),
    "of safetensors": SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    "of torch": RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"),
}


@pytest.mark.parametrize("error", FULL)
def test_a_disk_that_fills_up_in_a_checkpoint(whole, tmp_path, target, processor, finished, monkeypatch, error):
    """What is finished stays, and the same command goes on."""
    run = world.train_run(tmp_path, "eagle", save_minutes=0, trainer=EVERY)
    real, calls = DrafterTrainer._save_optimizer_and_scheduler, []

    def write(self, folder):
        calls.append(folder)
        if len(calls) == 4:
            raise FULL[error]
        real(self, folder)

    with monkeypatch.context() as patch, pytest.raises(OSError, match=r"work/0-all: the disk is full.*same command"):
        patch.setattr(DrafterTrainer, "_save_optimizer_and_scheduler", write)
        world.trained(run, target, processor, finished)
    assert last_checkpoint(run.work / "0-all").name == "checkpoint-3"
    world.trained(run, target, processor, finished)
    assert world.histories(run) == world.histories(whole)


def test_a_disk_without_room_for_a_checkpoint(tmp_path, target, processor, finished, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=100))
    with pytest.raises(OSError, match=r"work/0-all: 0.00 GB free, but the next checkpoint needs"):
        world.trained(world.train_run(tmp_path, "eagle"), target, processor, finished)


def test_a_disk_without_room_for_the_result(whole, tmp_path, target, processor, finished, monkeypatch):
    run = again(whole, tmp_path, lambda found: None)

    def full(*_, **__):
        raise FULL["of safetensors"]

    with monkeypatch.context() as patch, pytest.raises(OSError, match="the disk is full"):
        patch.setattr("hf_mmspec.training.train.save_result", full)
        world.trained(run, target, processor, finished)
    world.trained(run, target, processor, finished)
    assert_same_weights(run, whole)


def test_a_loss_that_is_no_number_ends_it_before_it_is_saved(tmp_path, target, processor, finished, monkeypatch):
    """Otherwise it would go on from there."""
    real, calls = DrafterWithLoss.weighed, []

    def third_is_nan(self, terms):
        calls.append(1)
        return real(self, terms) * (float("nan") if len(calls) == 3 else 1)

    monkeypatch.setattr(DrafterWithLoss, "weighed", third_is_nan)
    run = world.train_run(tmp_path, "eagle", save_minutes=0)
    with pytest.raises(NoNumberError, match="the loss is nan at step 3: lower the learning rate"):
        world.trained(run, target, processor, finished)
    assert last_checkpoint(run.work / "0-all").name == "checkpoint-2"
    assert issubclass(NoNumberError, ValueError)  # which the command line turns into one line


def hooks_of(model):
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_state_dict_hooks")
    return sum(len(getattr(module, kind)) for module in model.modules() for kind in kinds)


@pytest.mark.parametrize("family", ["vispec", "flash", "msd"])
def test_a_training_leaves_the_target_as_it_was(tmp_path, target, processor, finished, family):
    before = {name: value.clone() for name, value in target.state_dict().items()}
    frozen = next(iter(target.parameters())).requires_grad_(False)
    hooks, side = hooks_of(target), processor.tokenizer.padding_side
    attributes = {name: set(vars(module)) for name, module in target.named_modules()}
    target.model.language_model.train()  # a part of it
    try:
        world.trained(world.train_run(tmp_path, family), target, processor, finished)
        assert [module.training for module in target.modules()].count(True) > 1 and not target.training
        assert target.model.language_model.training
        assert [p.requires_grad for p in target.parameters()].count(False) == 1 and not frozen.requires_grad
    finally:
        target.eval()
        frozen.requires_grad_(True)
    assert hooks_of(target) == hooks and processor.tokenizer.padding_side == side
    assert all(torch.equal(value, before[name]) for name, value in target.state_dict().items())
    assert {name: set(vars(module)) for name, module in target.named_modules()} == attributes
    assert all(parameter.grad is None for parameter in target.parameters())


def test_a_training_that_fails_leaves_the_target_as_it_was(tmp_path, target, processor, finished, monkeypatch):
    monkeypatch.setattr(DrafterTrainer, "train", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        world.trained(world.train_run(tmp_path, "eagle"), target, processor, finished)
    assert all(parameter.requires_grad for parameter in target.parameters())


def test_precision_may_change_from_training_to_training(tmp_path, target, processor, finished):
    for number, bf16 in enumerate([True, False]):
        run = world.train_run(tmp_path / str(number), "eagle", trainer={"bf16": bf16})
        world.trained(run, target, processor, finished)
        losses = [value for (_, _, name), value in world.histories(run).items() if name == "loss"]
        assert losses and all(map(math.isfinite, losses))


def test_several_gpus_without_several_processes_are_one(tmp_path, monkeypatch):
    monkeypatch.setattr(TrainingArguments, "n_gpu", property(lambda self: 2))
    stage = world.recipe("eagle").stages[0]
    assert training_arguments(stage, tmp_path, 9, 3, 0, use_cpu=True)._n_gpu == 1


def test_pictures_are_never_supervised(finished, target, processor):
    source = RecordSource.open([AnswerSet.load(finished)], Reader(target, processor))
    records = source.records(range(len(source)))
    labels = collate(records)["labels"]
    assert not (labels == 3).any() and any(record.spans for record in records)
    for row, record in zip(labels, records, strict=True):
        supervised = (row != IGNORED).nonzero()[:, 0].tolist()
        assert supervised == list(range(record.prompt_length - 1, len(record.ids) - 2))
        assert row[supervised].tolist() == record.answer[1:]


def test_a_batch_without_anything_to_learn_is_refused(finished, target, processor):
    record = RecordSource.open([AnswerSet.load(finished)], Reader(target, processor)).records([0])[0]
    with pytest.raises(ValueError, match="the loss mask is all zero"):
        collate([record.cut_to(record.prompt_length + 1)])
    with pytest.raises(ValueError, match="the loss mask is all zero"):
        collate([record], lambda ids: torch.zeros_like(ids, dtype=torch.bool))
