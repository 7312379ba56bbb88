"""FLASH in its final form (SpecFLASH, arXiv 2505.12728): k drafts from one forward, over compressed images.

Fusion, slots and their refinement are its own; reading the target is in `row_drafter.py`, latents in `latent_pool.py`.
"""

from typing import Any

import torch
from torch import nn
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from .binding import unwrap
from .configuration_flash import FlashConfig
from .draft_state import BorrowedParts, DraftState
from .row_drafter import BatchRows, DrafterOutput, RowDrafter
from .row_plan import Spans, put_rows, take_rows
from .slot_refiner import SlotRefiner
from .tree_growth import Rows, Step
from .unrolling import UnrollCache, slot_mask


class SlotLayer(LlamaDecoderLayer):
    """A Llama layer with dropout on both branches."""

    def __init__(self, config: FlashConfig, index: int):
        super().__init__(config, index)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, hidden_states: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        attended, _ = self.self_attn(self.input_layernorm(hidden_states), **kwargs)
        x = hidden_states + self.dropout(attended)
        return x + self.dropout(self.mlp(self.post_attention_layernorm(x)))


class FlashDrafter(RowDrafter):
    """The FLASH drafter.

    Every row takes k slots (the row plus a placeholder embedding each). A slot attends to slot 0 of all rows up to its
    own and to the slots before it in its row, so that a cache of slot 0 alone serves all later rows: a new row costs
    k queries and adds one entry. Slot i of row t estimates the feature of position t + 1 + i; the target's own feature
    h_t is added through a gate, and from slot 1 on a refiner reads the tokens of the slots before.

    Conventions, where the released code trains one way and decodes another (`reference_compat` does as it does; its
    weights draft best with `released_rows` alone):

    * The refiner of slot i is conditioned on the tokens that slots 0 to i - 1 stand for, t + 2 to t + 1 + i, in
      training as in drafting. The released training feeds t + 1 to t + i.
    * The gate is open in training and in drafting. The released decoding leaves it out after images.
    * Each token is drafted given those before it in its own branch, sampled or not, so that a tree over the slots'
      best tokens and p/q speculative sampling of a chain are exact.
    """

    config_class = FlashConfig
    config: FlashConfig
    compact_positions = True

    def __init__(self, config: FlashConfig):
        super().__init__(config)
        hidden, slots = config.hidden_size, config.num_slots
        self.fc_gate = nn.Linear(2 * hidden, hidden, bias=config.fc_bias)
        self.fc_up = nn.Linear(2 * hidden, hidden, bias=config.fc_bias)
        self.slot_embeddings = nn.Parameter(0.02 * torch.randn(slots, hidden))
        self.slot_embeddings.data[0] = 0
        self.residual_gate = nn.Parameter(torch.ones(slots))
        self.refiner: SlotRefiner | None = None
        if config.refiner:
            self.refiner = SlotRefiner(hidden, config.refiner_size, slots, config.dropout)
        self.post_init()

    @classmethod
    def from_target(cls, target: Any, draft_token_ids: torch.Tensor | None = None, **overrides):
        """As `Drafter.from_target`, with the authors' layer: no grouped keys, an MLP of four times the width."""
        hidden = unwrap(target).config.get_text_config(decoder=True).hidden_size
        shape = {"num_key_value_heads": 0, "intermediate_size": 4 * hidden}
        return super().from_target(target, draft_token_ids, **{**shape, **overrides})

    @property
    def max_levels(self) -> int:
        return self.config.num_slots

    def make_layer(self, index: int) -> nn.Module:
        return SlotLayer(self.config, index)

    def fuse(
        self, embeddings: torch.Tensor, features: torch.Tensor, image_features: torch.Tensor | None
    ) -> torch.Tensor:
        x = torch.cat([embeddings, self.see_image(features, image_features)], dim=-1)
        return nn.functional.silu(self.fc_gate(x)) * self.fc_up(x)

    def _run(self, x, positions, mask, cache, slots: slice = slice(0, 1)) -> torch.Tensor:
        return super()._run(x + self.slot_embeddings[slots], positions, mask, cache)

    # ---- drafting -----------------------------------------------------------------------------------------------

    def start_round(self, state: DraftState, levels: int) -> tuple[Rows, Step]:
        hidden = self._slots_of_last_row(state, levels)

        def step(tokens: torch.Tensor, contexts: torch.Tensor, level: int, visible: torch.Tensor) -> Rows:
            contexts = contexts + self.embed(tokens, state.borrowed)
            slot = hidden[:, level + 1 : level + 2].expand_as(contexts)
            return Rows(contexts, self.draft_logits(self._refine(level + 1, contexts, slot), state.borrowed))

        return Rows(torch.zeros_like(hidden[:, :1]), self.draft_logits(hidden[:, :1], state.borrowed)), step

    def _slots_of_last_row(self, state: DraftState, count: int) -> torch.Tensor:
        """Outputs `(B, count, H)`, not refined. Slot 0 was computed with the row; the others are scratch."""
        hidden, x = state.last_hidden[:, None], state.last_input
        if count > 1:
            starts = torch.tensor(state.next_positions, device=x.device)[:, None]
            positions = starts + torch.arange(count - 1, device=x.device)
            before = torch.ones(len(x), count - 1, count - 1, dtype=torch.bool, device=x.device).tril_()
            mask = self._scratch_mask(x, self._beyond_row(state.cache), before)
            hidden = torch.cat([hidden, self._run(x, positions, mask, state.cache, slice(1, count))], dim=1)
        gated = hidden + self.residual_gate[:count, None] * state.last_feature[:, None]
        if not self.config.reference_compat:
            return gated
        has_images = torch.as_tensor(state.has_images, device=x.device).reshape(-1, 1, 1)
        return torch.where(has_images, hidden, gated)

    def _refine(self, slot: int, context: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        return hidden if self.refiner is None else self.refiner(slot, context, hidden)

    # ---- training -----------------------------------------------------------------------------------------------

    def forward(
        self,
        features: torch.Tensor,
        inputs_embeds: torch.Tensor | None,
        visual_spans: list[Spans] | None = None,
        attention_mask: torch.Tensor | None = None,
        steps: int | None = None,
        unroll_from: torch.Tensor | None = None,
        borrowed: BorrowedParts | None = None,
        own_token_rate: float = 0.0,
        input_ids: torch.Tensor | None = None,
    ) -> DrafterOutput:
        """The training path, with gradients: all slots of all rows.

        Args:
            features: `(B, L, H)` target features.
            inputs_embeds: `(B, L, H)` unshifted merged embeddings, see `embed_inputs`.
            visual_spans: for each sample its half-open image spans, in order; any number, any lengths.
            attention_mask: `(B, L)`, 0 at padding, on either side.
            steps: slots to compute, all by default.
            unroll_from: `int64 (B,)`, first slot of each sample whose row needs more than slot 0 (default: all).
            borrowed: the target's parts; needed for `own_token_rate`.
            own_token_rate: how often the refiner reads the drafter's own best token instead of the true one
                (scheduled sampling; 1 is free running, as in drafting).
            input_ids: `int64 (B, L)` expanded ids; for drafters with embeddings of their own.

        Returns:
            One entry for each slot. As in every family, row j of entry i estimates the feature of position j + 1: it
            is slot i of the row at slot j - i.
        """
        inputs_embeds = self.embed_inputs(inputs_embeds, input_ids)
        count = min(steps or self.config.num_slots, self.config.num_slots)
        rows, cache = self.batch_rows(features, inputs_embeds, visual_spans, attention_mask), UnrollCache()
        x = self.row_inputs(rows.plan, rows.embeddings, rows.features)
        hidden = self._run(x, rows.positions, slot_mask(x, 0, first=0), cache)
        outputs = [hidden + self.residual_gate[0] * rows.features]
        by_slot = [put_rows(outputs[0], rows.plan, rows.length)]

        first = 0 if unroll_from is None else rows.plan.first_row_from(unroll_from)
        later, x = rows.from_row(first), x[:, first:]
        outputs = [outputs[0][:, first:]]
        for slot in range(1, count):
            hidden = self._run(x, later.positions + slot, slot_mask(x, slot, first), cache, slice(slot, slot + 1))
            outputs.append(hidden + self.residual_gate[slot] * later.features)
        refined = self._refine_rows(outputs, later, inputs_embeds, borrowed, own_token_rate)
        for slot, hidden in enumerate(refined[1:], start=1):
            by_row = put_rows(hidden, later.plan, rows.length)
            by_slot.append(nn.functional.pad(by_row, (0, 0, slot, 0))[:, : rows.length])
        return DrafterOutput(hidden_states=tuple(by_slot), rows=rows.text_rows())

    def _refine_rows(
        self,
        outputs: list[torch.Tensor],
        rows: BatchRows,
        inputs_embeds: torch.Tensor,
        borrowed: BorrowedParts | None,
        own_token_rate: float,
    ) -> list[torch.Tensor]:
        """The slots of the same rows, each refined by the tokens of the slots before it."""
        refined, context = outputs[:1], torch.zeros_like(outputs[0])
        ahead = 0 if self.config.reference_compat else 1
        for slot, hidden in enumerate(outputs[1:], start=1):
            previous = take_rows(inputs_embeds.roll(-slot - ahead, dims=1), rows.plan.slots)
            if own_token_rate > 0:
                own = self._own_tokens(refined[-1], borrowed)
                chosen = torch.rand(own.shape[:2], device=own.device) < own_token_rate
                previous = torch.where(chosen[..., None], own, previous)
            context = context + previous
            refined.append(self._refine(slot, context, hidden))
        return refined

    @torch.no_grad()
    def _own_tokens(self, hidden: torch.Tensor, borrowed: BorrowedParts | None) -> torch.Tensor:
        if borrowed is None:
            raise ValueError("own_token_rate needs the target's embeddings: pass what `bind(target)` returned")
        return self.embed(self.to_target_ids(self.draft_logits(hidden, borrowed).argmax(-1)), borrowed)
