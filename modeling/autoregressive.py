"""Drafters with a small decoder that feeds on its own outputs: drafting level by level, unrolled training.

Families say how inputs are made (`fuse`); reading the target is in `row_drafter.py`, acceptance elsewhere.
"""

from collections.abc import Sequence

import torch
from torch import nn
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from .configuration_autoregressive import AutoregressiveConfig
from .configuration_drafter import DrafterConfig
from .draft_state import DraftState
from .drafted_rows import DraftedRows
from .row_drafter import BatchRows, DrafterOutput, RowDrafter
from .row_plan import put_rows
from .tree_growth import Rows, Step
from .unrolling import UnrollCache, unroll_mask, without_rotation


class AutoregressiveDrafter(RowDrafter):
    """A drafter of EAGLE's kind: a drafted token's row takes the output of the row before for its feature."""

    config: AutoregressiveConfig

    def make_layer(self, index: int) -> nn.Module:
        """EAGLE's first layer has no input norm."""
        return decoder_layer(self.config, index, input_norm=index > 0)

    def start_round(self, state: DraftState, levels: int) -> tuple[Rows, Step]:
        state.drafted = DraftedRows(state.cache.stable) if self.config.accepted_rows == "reuse" else None
        hidden = state.last_hidden[:, None]
        return Rows(hidden, self.draft_logits(hidden, state.borrowed)), self._stepper(state, levels)

    def _stepper(self, state: DraftState, levels: int) -> Step:
        """One draft step on the state's cache: nodes see all known rows, their ancestors and themselves. It is called
        for less than `levels` levels."""
        next_positions = torch.tensor(state.next_positions, device=self.device)[:, None]
        tables = self.rotary_emb(state.last_hidden, next_positions + torch.arange(levels, device=self.device))
        beyond_row = self._beyond_row(state.cache)

        def step(tokens: torch.Tensor, features: torch.Tensor, level: int, visible: torch.Tensor) -> Rows:
            x = self.fuse(self.embed(tokens, state.borrowed), features, state.image_feature)
            mask = self._scratch_mask(x, beyond_row, visible)
            cos, sin = (table[:, level : level + 1] for table in tables)
            hidden = self._run_turned(x, (cos, sin), mask, state.cache)
            if state.drafted is not None:
                state.drafted.add(tokens, visible)
            return Rows(hidden, self.draft_logits(hidden, state.borrowed))

        return step

    @torch.no_grad()
    def extend_rows(
        self, state: DraftState, features: Sequence[torch.Tensor], next_tokens: Sequence[torch.Tensor]
    ) -> None:
        """As `Drafter.extend_rows`. With `accepted_rows="reuse"` the rows that `propose` wrote for accepted tokens
        stay, in each row of the batch its own.

        A row of the last token is always computed, as the next level 1 is read from it, and from the target's own
        feature, not from the drafter's estimate of it: verification has given it anyway, and every round then starts
        from the truth, whatever has gathered in the kept rows.
        """
        if state.drafted is not None:
            kept = state.drafted.along([tokens[0, :-1].tolist() for tokens in next_tokens])
            state.cache.keep(kept, state.drafted.first)
            counts = [len(columns) for columns in kept]
            state.advance(counts)
            state.drafted = None
            features = [own[:, count:] for own, count in zip(features, counts, strict=True)]
            next_tokens = [own[:, count:] for own, count in zip(next_tokens, counts, strict=True)]
        super().extend_rows(state, features, next_tokens)

    def forward(
        self,
        features: torch.Tensor,
        inputs_embeds: torch.Tensor | None,
        visual_spans: list[list[tuple[int, int]]] | None = None,
        attention_mask: torch.Tensor | None = None,
        steps: int = 1,
        unroll_from: torch.Tensor | None = None,
        input_ids: torch.Tensor | None = None,
        with_keys_values: bool = False,
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
            with_keys_values: whether `keys_values` are wanted too.
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
        keys_values = self._keys_values(cache, rows, first, steps) if with_keys_values else None
        return DrafterOutput(hidden_states=tuple(outputs), rows=rows.text_rows(), keys_values=keys_values)

    def _keys_values(self, cache: UnrollCache, rows: BatchRows, first: int, steps: int) -> tuple[torch.Tensor, ...]:
        """What each pass wrote, see `DrafterOutput`; passes after the plain one begin at row `first`."""
        count = rows.plan.slots.shape[1]
        layers = [cache.split(i, [count] + [count - first] * (steps - 1)) for i in range(len(self.layers))]
        cos, sin = self.rotary_emb(rows.features, rows.positions)
        found = []
        for step, pairs in enumerate(zip(*layers, strict=True)):
            start = first if step else 0
            turn = cos[:, None, start:], sin[:, None, start:]
            written = torch.stack([torch.stack([without_rotation(keys, *turn), values]) for keys, values in pairs])
            by_row = written.permute(2, 4, 0, 1, 3, 5)  # from layers, 2, B, heads, R, head_dim
            found.append(put_rows(by_row, rows.plan.from_row(start), rows.length))
        return tuple(found)


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
