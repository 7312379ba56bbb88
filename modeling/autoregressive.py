"""Drafters with a small decoder that feeds on its own outputs: drafting level by level, unrolled training.

Families say how inputs are made (`fuse`); reading the target is in `row_drafter.py`, acceptance elsewhere.
"""

import torch
from torch import nn
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from .configuration_drafter import DrafterConfig
from .draft_state import DraftState
from .row_drafter import DrafterOutput, RowDrafter
from .row_plan import put_rows
from .tree_growth import Rows, Step
from .unrolling import UnrollCache, unroll_mask


class AutoregressiveDrafter(RowDrafter):
    """A drafter of EAGLE's kind: a drafted token's row takes the output of the row before for its feature."""

    def make_layer(self, index: int) -> nn.Module:
        """EAGLE's first layer has no input norm."""
        return decoder_layer(self.config, index, input_norm=index > 0)

    def start_round(self, state: DraftState, levels: int) -> tuple[Rows, Step]:
        hidden = state.last_hidden[:, None]
        return Rows(hidden, self.draft_logits(hidden, state.borrowed)), self._stepper(state)

    def _stepper(self, state: DraftState) -> Step:
        """One draft step on the state's cache: nodes see all known rows, their ancestors and themselves."""
        next_positions = torch.tensor(state.next_positions, device=self.device)[:, None]
        beyond_row = self._beyond_row(state.cache)

        def step(tokens: torch.Tensor, features: torch.Tensor, level: int, visible: torch.Tensor) -> Rows:
            x = self.fuse(self.embed(tokens, state.borrowed), features, state.image_feature)
            mask = self._scratch_mask(x, beyond_row, visible)
            hidden = self._run(x, next_positions + level, mask, state.cache)
            return Rows(hidden, self.draft_logits(hidden, state.borrowed))

        return step

    def forward(
        self,
        features: torch.Tensor,
        inputs_embeds: torch.Tensor | None,
        visual_spans: list[list[tuple[int, int]]] | None = None,
        attention_mask: torch.Tensor | None = None,
        steps: int = 1,
        unroll_from: torch.Tensor | None = None,
        input_ids: torch.Tensor | None = None,
    ) -> DrafterOutput:
        """The training path, with gradients: a plain pass, then `steps - 1` passes on the drafter's own outputs.

        An unrolled step sees exactly what drafting will see: row j of step k takes step k - 1's output of row j - 1
        for its feature, and attends to plain rows up to j - k and to its own drafted ancestors (EAGLE-3's
        training-time test; ViSpec's shortcut mitigation is `steps=2`).

        Args:
            features: `(B, L, F)` target features.
            inputs_embeds: `(B, L, H)` unshifted merged embeddings, see `embed_inputs`.
            visual_spans: for each sample its half-open image spans, in order; any number, any lengths.
            attention_mask: `(B, L)`, 0 at padding, on either side.
            steps: passes in all.
            unroll_from: `int64 (B,)`, first slot of each sample that unrolled passes are wanted for (default: all).
                Leaving prompts out of them saves a third of the work.
            input_ids: `int64 (B, L)` expanded ids, anything at padding; for drafters with embeddings of their own.
        """
        inputs_embeds = self.embed_inputs(inputs_embeds, input_ids)
        rows = self.batch_rows(features, inputs_embeds, visual_spans, attention_mask)
        cache = UnrollCache()
        x = self.row_inputs(rows.plan, rows.embeddings, rows.features)
        hidden = self._run(x, rows.positions, unroll_mask(x, 0, first=0), cache)
        outputs = [put_rows(hidden, rows.plan, rows.length)]

        first = 0 if unroll_from is None else rows.plan.first_row_from(unroll_from)
        plan, embeddings, positions = rows.plan.from_row(first), rows.embeddings[:, first:], rows.positions[:, first:]
        before = rows.features[:, :1] if first == 0 else hidden[:, first - 1 : first]
        hidden = hidden[:, first:]
        for step in range(1, steps):
            x = self.row_inputs(plan, embeddings, torch.cat([before, hidden[:, :-1]], dim=1))
            hidden = self._run(x, positions, unroll_mask(x, step, first), cache)
            outputs.append(put_rows(hidden, plan, rows.length))
        return DrafterOutput(hidden_states=tuple(outputs), rows=rows.text_rows())


def decoder_layer(config: DrafterConfig, index: int, input_norm: bool) -> LlamaDecoderLayer:
    """transformers' Llama layer; without its input norm where the family has none, biases on q, k and v only."""
    layer = LlamaDecoderLayer(config, index)
    if config.attention_bias:
        layer.self_attn.o_proj = nn.Linear(
            config.num_attention_heads * config.head_dim, config.hidden_size, bias=False
        )
    if not input_norm:
        layer.input_layernorm = nn.Identity()
    return layer
