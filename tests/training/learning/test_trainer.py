"""transformers' Trainer with our judge: L chooses the checkpoint, and measuring L changes nothing."""

import json
import math
import time
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from hf_mmspec.auto import AutoDrafter
from hf_mmspec.training.learning.collator import IGNORED, collate
from hf_mmspec.training.learning.order import Entry, steps_of, training_order
from hf_mmspec.training.learning.trainer import DrafterTrainer, last_checkpoint, state_of, training_arguments
from hf_mmspec.training.recipes import Stage
from tests.training.making import gradients, llava_of_three_layers, module, record

RECORDS = [record(12 + 2 * i, 8, ((2, 4),) if i % 2 else (), seed=i) for i in range(8)]
ENTRIES = [Entry(len(r.ids), len(r.ids) - 2 * bool(r.spans)) for r in RECORDS]
STAGE = Stage("s", epochs=3.0, batch_size=4, unroll=2, learning_rate=1e-3)  # 6 steps


@pytest.fixture(scope="module")
def target():
    return llava_of_three_layers()


def make_batch(picks):
    return collate([RECORDS[pick.index] for pick in picks])


def trainer_of(learning, folder, judge, stage=STAGE, evaluations=3, accumulate=1, make=make_batch, **options):
    steps = steps_of(stage, ENTRIES)
    arguments = training_arguments(
        stage, folder, steps, evaluations, 0, accumulate, **{"use_cpu": True, "disable_tqdm": True, **options}
    )
    return DrafterTrainer(learning, arguments, training_order(stage, ENTRIES, 0), make, judge)


def scripted(*lengths):
    """A judge that says these lengths one after the other, and remembers whom it saw."""
    found, seen = iter(lengths), []

    def judge(drafter):
        seen.append({name: tensor.clone() for name, tensor in drafter.state_dict().items()})
        return {"acceptance_length": next(found), "acceptance_length/t": 1.0}

    return judge, seen


def equal(state, other):
    return all(torch.equal(tensor, other[name]) for name, tensor in state.items())


def test_the_best_weights_are_kept_not_the_last(target, tmp_path):
    """DeepSpec issue 84: L can fall while the loss falls on."""
    learning = module("eagle", target)
    judge, seen = scripted(1.0, 5.0, 2.0)
    trainer = trainer_of(learning, tmp_path, judge, logging_steps=1)
    trainer.train()
    assert len(seen) == 3
    assert equal(learning.drafter.state_dict(), seen[1])
    assert not equal(seen[1], seen[2])
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 6
    assert losses[-1] < losses[0]
    measured = {
        e["step"]: e["eval_acceptance_length"] for e in trainer.state.log_history if "eval_acceptance_length" in e
    }
    assert measured == {2: 1.0, 4: 5.0, 6: 2.0}


def test_the_end_is_measured_too(target, tmp_path):
    judge, seen = scripted(*range(9))
    trainer = trainer_of(module("eagle", target), tmp_path, judge, replace(STAGE, epochs=2.5), evaluations=3)
    trainer.train()
    assert [e["step"] for e in trainer.state.log_history if "eval_acceptance_length" in e] == [2, 4, 5]
    assert equal(trainer.drafter.state_dict(), seen[2])


def test_checkpoints_are_drafters(target, tmp_path):
    learning = module("eagle", target)
    judge, seen = scripted(1.0, 2.0, 3.0)
    trainer_of(learning, tmp_path, judge).train()
    checkpoint = last_checkpoint(tmp_path)
    assert checkpoint.name == "checkpoint-6"
    assert equal(AutoDrafter.from_pretrained(checkpoint).state_dict(), seen[2])
    assert state_of(checkpoint).best_metric == 3.0
    assert len(list(tmp_path.glob("checkpoint-*"))) == 2  # the best one, and one to go on from


def test_measuring_does_not_touch_training(target, tmp_path):
    """Neither its random numbers nor its dropout: with noise, both judges give the same weights."""

    def judged(folder, judge):
        torch.manual_seed(0)
        learning = module("flash", target, noise=0.2)
        learning.drafter.config.dropout = 0.1
        for layer in learning.drafter.modules():
            if isinstance(layer, torch.nn.Dropout):
                layer.p = 0.1
        learning.stage = replace(learning.stage, unroll=2)
        trainer_of(learning, folder, judge).train()
        return learning.drafter.state_dict()

    modes, rising = [], iter(range(9))

    def hungry(drafter):
        modes.append(drafter.training)
        torch.rand(100)
        return {"acceptance_length": float(next(rising))}

    rising_too = iter(range(9))
    modest = judged(tmp_path / "a", lambda _: {"acceptance_length": float(next(rising_too))})
    assert equal(modest, judged(tmp_path / "b", hungry))
    assert modes == [False] * 3


def test_a_loss_that_is_no_number_ends_the_run(target, tmp_path):
    learning = module("eagle", target)

    def broken(picks):
        batch = make_batch(picks)
        batch["features"][:, -5:] = math.nan
        return batch

    trainer = trainer_of(learning, tmp_path, scripted(1.0, 1.0)[0], make=broken)
    with pytest.raises(FloatingPointError, match="the loss is nan at step 2: lower the learning rate"):
        trainer.train()


def test_the_step_is_the_loss_per_supervised_token(target, tmp_path):
    """What Trainer logs for the first step is the loss of its records, however many parts they were read in."""
    learning = module("eagle", target, unroll=2)
    first = [RECORDS[pick.index] for pick in training_order(STAGE, ENTRIES, 0)[:4]]
    batch = collate(first)
    assert len({int((row != IGNORED).sum()) for row in batch["labels"]}) > 1  # else any average would do
    expected, _ = gradients(learning, batch)
    trainer = trainer_of(learning, tmp_path, scripted(1, 2, 3)[0], accumulate=2, logging_steps=1)
    trainer.train()
    assert trainer.state.log_history[0]["loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("logging", [1, 2])
def test_every_term_of_the_loss_is_logged(target, tmp_path, logging):
    """Per step, before its weight, whatever a step is read in; their weighed sum is the loss."""
    learning = module("eagle", target, unroll=1, kv_loss_weight=0.5)
    trainer = trainer_of(learning, tmp_path, scripted(1, 2, 3)[0], accumulate=2, logging_steps=logging)
    trainer.train()
    entries = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert len(entries) == 6 // logging
    for entry in entries:
        terms = {name.removeprefix("loss/"): value for name, value in entry.items() if name.startswith("loss/")}
        assert terms.keys() == learning.weights.keys() == {"soft_cross_entropy", "feature_regression", "kv"}
        assert sum(learning.weights[name] * value for name, value in terms.items()) == pytest.approx(entry["loss"])
        assert min(terms.values()) > 0


def test_seconds_of_steps_leave_out_measuring(target, tmp_path):
    def make_slowly(picks):
        time.sleep(0.05)
        return make_batch(picks)

    def judge(drafter):
        time.sleep(1.0)
        return {"acceptance_length": 1.0}

    began = time.perf_counter()
    trainer = trainer_of(module("eagle", target), tmp_path, judge, make=make_slowly, logging_steps=2)
    trainer.train()
    whole = time.perf_counter() - began
    seconds = [entry["seconds"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(seconds) == 3
    assert min(seconds) > 2 * 0.05
    assert sum(seconds) < whole - 3 * 1.0


def test_a_stage_goes_on_from_its_checkpoint(target, tmp_path):
    def trained(folder, judge, checkpoint=None):
        learning = module("eagle", target, noise=0.1)
        trainer_of(learning, folder, judge).train(resume_from_checkpoint=checkpoint)
        return learning.drafter.state_dict()

    whole = trained(tmp_path / "whole", scripted(1, 2, 3)[0])
    with pytest.raises(StopIteration):
        trained(tmp_path / "cut", scripted(1)[0])
    checkpoint = last_checkpoint(tmp_path / "cut")
    assert checkpoint.name == "checkpoint-2"
    assert equal(whole, trained(tmp_path / "cut", scripted(2, 3)[0], str(checkpoint)))


def test_arguments_are_the_stages(tmp_path):
    stage = Stage("s", batch_size=8, learning_rate=2e-4, warmup=0.1, weight_decay=0.05, clip=0.5, betas=[0.8, 0.99])
    arguments = training_arguments(stage, tmp_path, 200, 4, 3, accumulate=2, logging_steps=7, processes=2)
    assert (arguments.per_device_train_batch_size, arguments.gradient_accumulation_steps) == (2, 2)
    assert (arguments.learning_rate, arguments.weight_decay, arguments.max_grad_norm) == (2e-4, 0.05, 0.5)
    assert (arguments.adam_beta1, arguments.adam_beta2) == (0.8, 0.99)
    assert (arguments.warmup_steps, arguments.eval_steps, arguments.save_steps) == (20, 50, 50)
    assert (arguments.seed, arguments.logging_steps) == (3, 7)
    assert arguments.lr_scheduler_kwargs == {"min_lr_rate": 0.1}
    assert training_arguments(replace(stage, schedule="linear"), tmp_path, 2, 4, 0).lr_scheduler_kwargs in ({}, None)


@pytest.mark.parametrize("processes, accumulate", [(3, 1), (1, 5), (2, 8)])
def test_a_batch_that_cannot_be_shared_is_refused(tmp_path, processes, accumulate):
    words = rf"'s': a batch of 8.* {processes} processes with {accumulate} accumulation.*batch_size"
    with pytest.raises(ValueError, match=words):
        training_arguments(Stage("s", batch_size=8), tmp_path, 10, 2, 0, accumulate, processes=processes)


def test_broken_checkpoints_are_skipped_and_removed(tmp_path):
    contents = {2: '{"global_step": 2}', 10: '{"global_step": 10}', 12: '{"global_st', 14: "{}", 16: None}
    for step, text in contents.items():
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        save_file({"weight": torch.zeros(1)}, folder / "model.safetensors")
        for name in ("optimizer.pt", "scheduler.pt"):
            torch.save({}, folder / name)
        if text is not None:
            (folder / "trainer_state.json").write_text(text)
    (tmp_path / "runs").mkdir()
    assert last_checkpoint(tmp_path).name == "checkpoint-10"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-2", "runs"]
    for step in (2, 10):
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text(json.dumps({"global_step": 0})[:-3])
    assert last_checkpoint(tmp_path) is None
