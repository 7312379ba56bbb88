"""transformers' Trainer for a drafter: what is ours is how L chooses the checkpoint, and what a checkpoint holds.

Checkpoints, resumption, logging, precision, accumulation and processes are the library's.
"""

import math
import shutil
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from safetensors import SafetensorError, safe_open
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import TrainerState
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from hf_mmspec.modeling import Drafter

from ..disk import full_disk_explained, insist_on_room
from ..recipes.stage import Stage
from .drafter_with_loss import DrafterWithLoss
from .order import Pick
from .step_clock import StepClock

Judge = Callable[[Drafter], dict[str, float]]
BEST = "acceptance_length"  # what a judge's result is called that chooses the checkpoint
TERM = "loss/"  # what a term of the loss is logged as, before its name
SECONDS = "seconds"  # what the steps since the last entry of the log took
_PREFIX = "drafter."
_NEEDED = ("model.safetensors", "optimizer.pt", "scheduler.pt")  # to go on from a checkpoint of one process or DDP
_SHARDED = ("pytorch_model_fsdp*", "global_step*")  # FSDP's and DeepSpeed's own files instead


class NoNumberError(FloatingPointError, ValueError):
    """The loss is infinite or no number; the message says what helps."""


class DrafterTrainer(Trainer):
    """Trains `module.drafter` on planned picks; every evaluation measures L, and the best checkpoint is kept.

    A checkpoint's folder is a drafter's folder, with the optimiser beside it.
    """

    def __init__(
        self,
        module: DrafterWithLoss,
        arguments: TrainingArguments,
        picks: Sequence[Pick],
        make_batch: Callable[[Sequence[Pick]], dict[str, Any]],
        judge: Judge,
        save_minutes: float = 10.0,
    ):
        self._judge, self._make_batch = judge, make_batch
        self._terms: dict[str, torch.Tensor] = {}
        self._parts = 0  # of steps, whose terms these are
        self._clock = StepClock()
        super().__init__(
            model=module,
            args=arguments,
            train_dataset=list(picks),  # type: ignore[arg-type]
            eval_dataset=[None],  # type: ignore[arg-type]  # the judge has its own
            data_collator=list,  # type: ignore[arg-type]  # see `get_batch_samples`
            callbacks=[self._clock, SaveByTime(save_minutes), BestIsHere()],
        )

    @property
    def drafter(self) -> Drafter:
        """The drafter inside all wrappers."""
        return self.accelerator.unwrap_model(self.model).drafter

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        """As Trainer's, but picks become records here: accelerate's loader runs a batch ahead, and what the drafter
        proposes would come from the weights before the last step, or, in a resumed run, from those behind it."""
        with self._clock.running():
            return super().get_batch_samples(map(self._make_batch, epoch_iterator), num_batches, device)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """As Trainer's; the loss also knows how far the stage is."""
        progress = self.state.global_step / max(self.state.max_steps, 1)
        inputs = {**inputs, "progress": progress}
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        for name, term in outputs["terms"].items():
            self._terms[name] = self._terms.get(name, torch.zeros_like(term)) + term
        self._parts += 1
        return (loss, outputs) if return_outputs else loss

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix: str = "eval") -> dict[str, float]:
        """L through `generate`, by the judge; training's random numbers are not touched."""
        was_training = self.drafter.training
        with torch.random.fork_rng(enabled=True):
            found = self._judge(self.drafter.eval())
        self.drafter.train(was_training)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in found.items()}
        self.log(metrics)
        self.control: Any = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As Trainer's, with every term of the loss and the seconds of the steps beside it; but a loss that is no
        number ends the run."""
        if not math.isfinite(logs.get("loss", 0.0)):
            raise NoNumberError(
                f"the loss is {logs['loss']} at step {self.state.global_step}: lower the learning rate, or train in "
                "float32"
            )
        if "loss" in logs:
            logs = {**logs, **self._mean_terms(), SECONDS: self._clock.taken()}
        super().log(logs, start_time)

    def _mean_terms(self) -> dict[str, float]:
        """Terms per step since they were last asked for, over all processes; before their weights."""
        steps = self._parts / self.args.gradient_accumulation_steps
        summed: Any = self.accelerator.reduce(self._terms, "sum")
        self._terms, self._parts = {}, 0
        return {f"{TERM}{name}": term.item() / steps for name, term in summed.items()}

    def _save_checkpoint(self, model, trial) -> None:
        folder = Path(self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        weights = sum(each.numel() * each.element_size() for each in self.drafter.parameters())
        insist_on_room(folder, 3 * weights, "the next checkpoint")  # weights, and two moments of the optimiser
        with full_disk_explained(folder):
            super()._save_checkpoint(model, trial)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        weights = None
        if state_dict is not None:  # gathered from several processes
            weights = {name.removeprefix(_PREFIX): value for name, value in state_dict.items()}
        self.drafter.save_pretrained(output_dir or self.args.output_dir, state_dict=weights)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            saved = type(self.drafter).from_pretrained(resume_from_checkpoint, dtype=self.drafter.dtype)
            self.drafter.load_state_dict(saved.state_dict())

    def _load_best_model(self) -> None:
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            super()._load_best_model()
        else:
            self._load_from_checkpoint(str(self.state.best_model_checkpoint))


class SaveByTime(TrainerCallback):
    """A checkpoint every so many minutes, besides those at evaluations: what a killed run can lose."""

    def __init__(self, minutes: float):
        self._seconds, self._last = 60 * minutes, time.monotonic()

    def on_step_end(self, args, state, control, **kwargs):
        """Ask for a checkpoint when it is time by the first process's clock: all have to take part in it. What was
        lost so far is logged with it, since a resumed run begins to add up anew."""
        due = [time.monotonic() - self._last >= self._seconds]
        if broadcast_object_list(due)[0]:
            control.should_save = True
        if control.should_save:
            control.should_log = True

    def on_save(self, args, state, control, **kwargs):
        """Count from the last one, whoever asked for it."""
        self._last = time.monotonic()


class BestIsHere(TrainerCallback):
    """The best checkpoint is in the folder that is trained in, wherever that was when the checkpoint was written."""

    def on_train_begin(self, args, state, control, **kwargs):
        """Name it anew."""
        if state.best_global_step:
            best = Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.best_global_step}"
            state.best_model_checkpoint = str(best)


def records_at_once(stage: Stage, processes: int, accumulate: int) -> int:
    """Records of a step that one process reads at once.

    Raises:
        ValueError: the batch cannot be shared evenly.
    """
    if stage.batch_size % (processes * accumulate):
        raise ValueError(
            f"stage {stage.name!r}: a batch of {stage.batch_size} records cannot be shared by {processes} processes "
            f"with {accumulate} accumulation steps: change stages.*.batch_size"
        )
    return stage.batch_size // (processes * accumulate)


def training_arguments(
    stage: Stage, folder: Path, steps: int, evaluations: int, seed: int, accumulate: int = 1, **options: Any
) -> TrainingArguments:
    """Arguments of one stage.

    Args:
        folder: for checkpoints and logs.
        steps: of the whole stage.
        evaluations: how often L is measured, evenly spread, the end included.
        accumulate: a step's records are read in so many parts.
        options: further or other `TrainingArguments`.

    Raises:
        ValueError: the batch cannot be shared evenly.
    """
    at_once = records_at_once(stage, int(options.pop("processes", 1)), accumulate)
    every = max(math.ceil(steps / evaluations), 1)
    cosine = {"min_lr_rate": stage.min_learning_rate} if stage.schedule == "cosine_with_min_lr" else {}
    chosen = {
        "output_dir": str(folder),
        "num_train_epochs": 1,  # epochs are in the order of the picks
        "train_sampling_strategy": "sequential",
        "per_device_train_batch_size": at_once,
        "gradient_accumulation_steps": accumulate,
        "learning_rate": stage.learning_rate,
        "lr_scheduler_type": stage.schedule,
        "lr_scheduler_kwargs": cosine,
        "warmup_steps": round(stage.warmup * steps),
        "weight_decay": stage.weight_decay,
        "adam_beta1": stage.betas[0],
        "adam_beta2": stage.betas[1],
        "max_grad_norm": stage.clip,
        "eval_strategy": "steps",
        "eval_steps": every,
        "save_strategy": "steps",
        "save_steps": every,
        "save_total_limit": 2,
        "load_best_model_at_end": True,
        "metric_for_best_model": f"eval_{BEST}",
        "greater_is_better": True,
        "logging_steps": min(10, every),
        "logging_nan_inf_filter": False,
        "report_to": "none",
        "seed": seed,
        "remove_unused_columns": False,
        "label_names": ["labels"],
        "dataloader_pin_memory": False,  # batches that are read on the fly are on the device already
        "ddp_find_unused_parameters": True,  # a batch without pictures does not touch the visual part
    }
    arguments = TrainingArguments(**{**chosen, **options})
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1  # not torch's DataParallel, which would cut batches: several GPUs are several processes
    return arguments


def last_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint to go on from: it is whole, and so is the best one until then. Damaged ones are removed: a
    run that was killed while it wrote one begins from the one before."""
    whole: dict[int, Path] = {}
    for checkpoint in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
        try:
            insist_on_whole(checkpoint)
            step = state_of(checkpoint).global_step
            if step == 0:
                raise ValueError("no step was made")
            whole[step] = checkpoint
        except (OSError, ValueError, TypeError, SafetensorError):
            shutil.rmtree(checkpoint, ignore_errors=True)  # other processes do the same
    usable = [step for step, checkpoint in whole.items() if state_of(checkpoint).best_global_step in {None, 0, *whole}]
    return whole[max(usable)] if usable else None


def insist_on_whole(checkpoint: Path) -> None:
    """Look at the files of a checkpoint without reading them through.

    Raises:
        OSError, ValueError, SafetensorError: one is missing or cut off.
    """
    if not any(any(checkpoint.glob(pattern)) for pattern in _SHARDED):
        for name in _NEEDED:
            (checkpoint / name).stat()
    for file in checkpoint.glob("*.safetensors"):
        with safe_open(file, "pt"):
            pass
    for file in [*checkpoint.glob("*.pt"), *checkpoint.glob("*.pth")]:
        if not zipfile.is_zipfile(file):
            raise ValueError(f"{file} is cut off")


def state_of(checkpoint: Path) -> TrainerState:
    """Steps, losses and L so far."""
    return TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
