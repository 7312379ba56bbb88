"""A drafter and its loss as one module, so that whatever wraps modules (DDP, FSDP, autocast) sees one forward.

Knows no family: any drafter whose `forward` gives hidden states by pass will do.
"""

from typing import Any

import torch
from torch import nn

from hf_mmspec.modeling import Drafter
from hf_mmspec.modeling.row_drafter import DrafterOutput

from ..recipes.stage import Stage
from .collator import IGNORED, first_slots, supervised_at
from .kv_loss import KV, passes_of, summed_kv_loss
from .losses import FEATURE_REGRESSION, LOSSES, feature_regression
from .target_parts import TargetParts

_NOISE_LENGTH = 512  # EAGLE's noise is `width * 512 / length` wide


class DrafterWithLoss(nn.Module):
    """Computes the loss of a batch of `collate`. Only the drafter's weights are its own; the target's parts are held
    outside of what is saved, moved or trained."""

    accepts_loss_kwargs = True  # transformers' Trainer then counts supervised tokens over the whole accumulated batch

    def __init__(self, drafter: Drafter, parts: TargetParts, stage: Stage):
        super().__init__()
        self.drafter = drafter
        self.stage = stage
        self.parts = parts  # a plain object, so no submodule

    def forward(
        self, num_items_in_batch: torch.Tensor | int | None = None, progress: float = 0.0, **batch: Any
    ) -> dict[str, Any]:
        """The `loss` per supervised token, and its `terms`: what each would be with a weight of 1, without gradient.

        Args:
            num_items_in_batch: supervised tokens of everything that is learned from in this step, over accumulation
                steps and processes; this batch's own without it. One count normalises all passes, so that a loss
                depends neither on padding nor on how a batch is split.
            progress: share of the stage that is done, for what changes as it goes.
            batch: as `collate` gives it.
        """
        labels = batch["labels"]
        states = batch.get("states", batch["features"])
        wanted = states.roll(-1, dims=1)
        total = torch.zeros((), device=labels.device)
        found = {name: torch.zeros((), device=labels.device) for name in self.weights}
        out = self.outputs(batch, progress, passes_of(self.stage), self.stage.kv_loss_weight > 0)
        for step, hidden in enumerate(out.hidden_states or ()):
            rows, decay = supervised_at(labels, step), self.stage.unroll_decay**step
            if not rows.any():
                break
            terms = self.summed_losses(hidden[rows], wanted[rows]) if step < self.stage.unroll else {}
            if out.keys_values is not None:
                terms[KV] = summed_kv_loss(self.stage, out.keys_values, batch, step, rows)
            total = total + decay * self.weighed(terms)
            for name, term in terms.items():
                found[name] += decay * term.detach()
        count = (labels != IGNORED).sum() if num_items_in_batch is None else num_items_in_batch
        return {"loss": total / count, "terms": {name: term / count for name, term in found.items()}}

    @property
    def weights(self) -> dict[str, float]:
        """The stage's weights of all terms by name, in the order in which they are added up."""
        loss = self.stage.loss
        weights = {name: loss[name] for name in loss if name in LOSSES}
        weights |= {name: loss[name] for name in loss if name == FEATURE_REGRESSION}
        return weights | ({KV: self.stage.kv_loss_weight} if self.stage.kv_loss_weight else {})

    def weighed(self, terms: dict[str, torch.Tensor]) -> torch.Tensor:
        """The sum of all terms, each times its weight."""
        total = torch.zeros((), device=next(iter(terms.values())).device)
        for name, term in terms.items():
            total = total + self.weights[name] * term
        return total

    def hidden_states(self, batch: dict[str, Any], progress: float = 0.0) -> tuple[torch.Tensor, ...]:
        """The drafter's outputs by pass, each `(B, N, H)`, see `DrafterOutput`."""
        return self.outputs(batch, progress, self.stage.unroll).hidden_states or ()

    def outputs(
        self, batch: dict[str, Any], progress: float, passes: int, with_keys_values: bool = False
    ) -> DrafterOutput:
        """The drafter's outputs of so many passes."""
        owns = self.drafter.embed_tokens is not None
        options: dict[str, Any] = {"input_ids": batch["input_ids"]} if owns else {}
        rate = self.stage.own_token_rate_at(progress)
        if self.training and rate > 0:
            options |= {"borrowed": self.parts.borrowed, "own_token_rate": rate}
        if with_keys_values:
            options["with_keys_values"] = True
        return self.drafter(
            self.noisy(batch["features"], batch["attention_mask"]).to(self.drafter.dtype),
            None if owns else self.merged_embeds(batch),
            batch["visual_spans"],
            batch["attention_mask"],
            steps=passes,
            unroll_from=first_slots(batch["labels"]),
            **options,
        )

    @torch.no_grad()
    def merged_embeds(self, batch: dict[str, Any]) -> torch.Tensor:
        """Merged embeddings `(B, N, H)` in the drafter's dtype: the target's for text, what it saw at pictures."""
        embeds = self.drafter.embed(batch["input_ids"], self.parts.borrowed)
        if len(batch["image_embeds"]):
            visual = torch.zeros_like(batch["attention_mask"])
            for row, spans in zip(visual, batch["visual_spans"], strict=True):
                for start, stop in spans:
                    row[start:stop] = True
            embeds = embeds.masked_scatter(visual[..., None], batch["image_embeds"].to(embeds.dtype))
        return embeds

    def noisy(self, features: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Uniform noise on the target's features, against leaning on them too exactly (EAGLE-1, training code)."""
        if not (self.training and self.stage.noise):
            return features
        width = self.stage.noise * _NOISE_LENGTH / attention_mask.sum(1)[:, None, None]
        return features + (torch.rand_like(features, dtype=torch.float32) - 0.5) * width

    def summed_losses(self, hidden: torch.Tensor, wanted: torch.Tensor) -> dict[str, torch.Tensor]:
        """Terms over the rows `hidden (n, H)` of a pass, where the target's states are `wanted (n, H)`."""
        terms: dict[str, torch.Tensor] = {}
        if any(name in LOSSES for name in self.stage.loss):
            draft = self.drafter.draft_logits(hidden, self.parts.borrowed).float()
            target = self.parts.logits(wanted)
            terms = {name: LOSSES[name](draft, target).sum() for name in self.stage.loss if name in LOSSES}
        if FEATURE_REGRESSION in self.stage.loss:
            terms[FEATURE_REGRESSION] = feature_regression(hidden, wanted).sum()
        return terms
