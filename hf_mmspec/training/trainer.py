"""Trains a drafter on records: unrolled passes, two kinds of loss, checkpoints chosen by acceptance.

A plain loop in plain PyTorch. Knows no family: any drafter whose `forward` unrolls will do.
"""

import copy
import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from hf_mmspec.modeling.autoregressive import AutoregressiveDrafter
from hf_mmspec.modeling.row_drafter import DrafterOutput

from .batches import Batch, collate, shuffled
from .losses import LOSSES, feature_regression
from .records import Record


@dataclass(frozen=True)
class Stage:
    """One stage of a training.

    Args:
        name: in logs and checkpoints.
        epochs: passes over the records (a fraction is fine).
        learning_rate: peak; warms up over `warmup` of the steps, then falls to a tenth by a cosine.
        unroll: passes in all; 1 is plain, 2 is ViSpec's shortcut mitigation, more train deeper drafts.
        decay: weight of pass k is `decay ** k`.
        loss: name in `losses.LOSSES`.
        regression: weight of the feature regression.
        noise: width of the uniform noise on the target's features (against leaning on them too exactly).
        batch_size, weight_decay, clip, warmup: the usual.
    """

    name: str
    epochs: float
    learning_rate: float = 3e-4
    unroll: int = 3
    decay: float = 0.8
    loss: str = "soft_cross_entropy"
    regression: float = 1.0
    noise: float = 0.0
    batch_size: int = 16
    weight_decay: float = 0.0
    clip: float = 1.0
    warmup: float = 0.05


@dataclass(frozen=True)
class TargetParts:
    """What training needs of the target: its embedding, and the rows of its head that the drafter can say."""

    embed: Callable[[torch.Tensor], torch.Tensor]
    head_rows: torch.Tensor

    @classmethod
    @torch.no_grad()
    def of(cls, target, drafter: AutoregressiveDrafter) -> "TargetParts":
        """Borrow them through the drafter's own checks; the head's rows are copied in float32."""
        borrowed = drafter.bind(target)
        rows = drafter.config.draft_vocab_size or borrowed.vocab_size
        ids = drafter.to_target_ids(torch.arange(rows, device=drafter.device))
        weight = borrowed.lm_head.weight
        head_rows = weight[ids.to(weight.device)].to(device=drafter.device, dtype=torch.float32)

        def embed(token_ids: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                return drafter.embed(token_ids, borrowed).float()

        return cls(embed, head_rows)

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        """The target's logits over the draft vocabulary."""
        return nn.functional.linear(features, self.head_rows.to(features.dtype))


def unrolled_loss(drafter: AutoregressiveDrafter, batch: Batch, parts: TargetParts, stage: Stage) -> torch.Tensor:
    """Mean loss per trained token, summed over the unrolled passes with their weights."""
    features = batch.features
    if stage.noise:
        features = features + (torch.rand_like(features) - 0.5) * stage.noise
    out: DrafterOutput = drafter(
        features,
        batch.inputs_embeds,
        batch.spans,
        batch.attention_mask,
        steps=stage.unroll,
        unroll_from=batch.first_slots,
    )
    assert out.hidden_states is not None
    total = torch.zeros((), device=features.device)
    for step, hidden in enumerate(out.hidden_states):
        rows = batch.loss_mask_at(step)
        if not rows.any():
            break
        wanted = batch.features.roll(-1, dims=1)[rows]
        drafted = hidden[rows]
        with torch.no_grad():
            target_logits = parts.logits(wanted).float()
        loss = LOSSES[stage.loss](drafter.draft_logits(drafted).float(), target_logits).mean()
        if stage.regression:
            loss = loss + stage.regression * feature_regression(drafted, wanted).mean()
        total = total + stage.decay**step * loss
    return total


Validate = Callable[[AutoregressiveDrafter], float]


class Trainer:
    """Runs stages on a drafter, keeping the best weights by validation.

    Args:
        drafter: trained in place, in float32.
        parts: of its target.
        folder: for checkpoints and `log.jsonl`; a run that was cut off goes on from there.
        validate: acceptance on validation data, larger is better; called every `validate_every` steps and at the end
            of every stage.
        autocast: dtype of the matrix products, None for float32.
    """

    def __init__(
        self,
        drafter: AutoregressiveDrafter,
        parts: TargetParts,
        folder: Path,
        validate: Validate,
        validate_every: int = 200,
        autocast: torch.dtype | None = None,
    ):
        if drafter.lm_head is None:
            raise ValueError("training needs a drafter with a head of its own: set `draft_vocab_size`")
        self.drafter, self.parts, self.folder, self.validate = drafter, parts, folder, validate
        self.validate_every, self.autocast = validate_every, autocast
        self.best, self.best_state = -math.inf, copy.deepcopy(drafter.state_dict())
        folder.mkdir(parents=True, exist_ok=True)

    def fit(self, stage: Stage, records: list[Record], seed: int = 0) -> None:
        """Run (or finish, or skip when it is done) one stage; afterwards the drafter holds the best weights so far."""
        optimizer = torch.optim.AdamW(
            self.drafter.parameters(), lr=stage.learning_rate, betas=(0.9, 0.95), weight_decay=stage.weight_decay
        )
        per_epoch = math.ceil(len(records) / stage.batch_size)
        steps = max(math.ceil(stage.epochs * per_epoch), 1)
        done = self._resume(stage, optimizer)
        started = time.perf_counter()
        for step in range(done, steps):
            batch_records = _batch_at(records, stage.batch_size, seed, step, per_epoch)
            for group in optimizer.param_groups:
                group["lr"] = stage.learning_rate * rate_at(step / steps, stage.warmup)
            loss = self._step(collate(batch_records, self.parts.embed), stage, optimizer)
            if step % 20 == 0:
                self._log(stage=stage.name, step=step, of=steps, loss=loss, seconds=time.perf_counter() - started)
            if (step + 1) % self.validate_every == 0 or step + 1 == steps:
                self._keep_if_best(stage, step + 1)
                self._save(stage, step + 1, optimizer)
        self.drafter.load_state_dict(self.best_state)

    def _step(self, batch: Batch, stage: Stage, optimizer: torch.optim.Optimizer) -> float:
        self.drafter.train()
        with torch.autocast(self.drafter.device.type, self.autocast, enabled=self.autocast is not None):
            loss = unrolled_loss(self.drafter, batch, self.parts, stage)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"stage {stage.name}: the loss is {loss.item()}; lower the learning rate")
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.drafter.parameters(), stage.clip)
        optimizer.step()
        return loss.item()

    def _keep_if_best(self, stage: Stage, step: int) -> None:
        self.drafter.eval()
        score = self.validate(self.drafter)
        if score > self.best:
            self.best, self.best_state = score, copy.deepcopy(self.drafter.state_dict())
        self._log(stage=stage.name, step=step, acceptance=score, best=self.best)

    def _save(self, stage: Stage, step: int, optimizer: torch.optim.Optimizer) -> None:
        state = {
            "stage": asdict(stage),
            "step": step,
            "drafter": self.drafter.state_dict(),
            "optimizer": optimizer.state_dict(),
            "best": self.best,
            "best_state": self.best_state,
        }
        partial = self.folder / f"{stage.name}.partial"
        torch.save(state, partial)
        os.replace(partial, self.folder / f"{stage.name}.pt")

    def _resume(self, stage: Stage, optimizer: torch.optim.Optimizer) -> int:
        file = self.folder / f"{stage.name}.pt"
        if not file.exists():
            return 0
        state = torch.load(file, weights_only=True)
        if state["stage"] != asdict(stage):
            raise ValueError(f"{file} belongs to other settings of stage {stage.name!r}; use another folder")
        self.drafter.load_state_dict(state["drafter"])
        optimizer.load_state_dict(state["optimizer"])
        self.best, self.best_state = state["best"], state["best_state"]
        return state["step"]

    def _log(self, **values) -> None:
        line = json.dumps({key: round(v, 4) if isinstance(v, float) else v for key, v in values.items()})
        print(line, flush=True)
        with (self.folder / "log.jsonl").open("a") as log:
            log.write(line + "\n")


def rate_at(progress: float, warmup: float) -> float:
    """Share of the peak learning rate: linear warm-up, then a cosine down to a tenth."""
    if progress < warmup:
        return (progress + 1e-3) / (warmup + 1e-3)
    return 0.1 + 0.45 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))


def _batch_at(records: list[Record], batch_size: int, seed: int, step: int, per_epoch: int) -> list[Record]:
    """The batch of a step, the same after a resumption."""
    epoch, index = divmod(step, per_epoch)
    return list(shuffled(records, batch_size, seed + epoch))[index]
