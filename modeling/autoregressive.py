"""Drafters with a small decoder that feeds on its own outputs: prefill, tree and chain drafting, unrolled training.

Families say how inputs are made (`fuse`); visual handling, acceptance and the target are elsewhere.
"""

from dataclasses import dataclass

import torch
from torch import nn
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRotaryEmbedding
from transformers.utils import ModelOutput

from .configuration_drafter import DrafterConfig
from .configuration_visual import VisualConfig
from .draft_state import BorrowedParts, DrafterCache, DraftState, TargetPrompt
from .draft_tree import DraftBudget, DraftTree
from .row_plan import RowPlan, put_rows, take_rows
from .tree_growth import Rows, Step, grow_chain, grow_tree, sample_chain
from .visual_drafter import VisualDrafter


@dataclass
class DrafterOutput(ModelOutput):
    """Output of the training path.

    Args:
        hidden_states: one `(B, L, H)` for each unrolled step, by slot: row j estimates the feature of position j + 1.
            Slots without a row are zero.
        rows: `bool (B, L)`, slots that had a text row.
    """

    hidden_states: tuple[torch.Tensor, ...] | None = None
    rows: torch.Tensor | None = None


class AutoregressiveDrafter(VisualDrafter):
    """A drafter of EAGLE's kind: fused inputs, `config.num_hidden_layers` decoder layers, recursion on its output."""

    config: VisualConfig

    def __init__(self, config: VisualConfig):
        super().__init__(config)
        self.layers = nn.ModuleList(self.make_layer(i) for i in range(config.num_hidden_layers))
        self.rotary_emb = LlamaRotaryEmbedding(config)
        self.add_visual_part(config)

    # ---- what a family implements -------------------------------------------------------------------------------

    def fuse(
        self, embeddings: torch.Tensor, features: torch.Tensor, image_features: torch.Tensor | None
    ) -> torch.Tensor:
        """Inputs `(B, R, input width)` of text rows, from embeddings, features (projected, or the drafter's own
        outputs) and broadcast image features."""
        raise NotImplementedError

    def make_layer(self, index: int) -> nn.Module:
        """The decoder layer `index`: EAGLE's first has no input norm."""
        return decoder_layer(self.config, index, input_norm=index > 0)

    def project(self, features: torch.Tensor) -> torch.Tensor:
        """Target features `(B, R, F)` at the drafter's width, `(B, R, H)`."""
        return features

    def visual_as_inputs(self, visual_inputs: torch.Tensor) -> torch.Tensor:
        """Given inputs `(B, R, H)` of visual rows at the width that `fuse` returns."""
        return visual_inputs

    def grow(self, root: torch.Tensor, first: Rows, step: Step, budget: DraftBudget) -> DraftTree:
        """The tree of a round, see `grow_tree`."""
        return grow_tree(root, first, step, self.to_target_ids, budget)

    # ---- drafting -----------------------------------------------------------------------------------------------

    @torch.no_grad()
    def prefill(self, prompt: TargetPrompt, next_token: torch.Tensor, borrowed: BorrowedParts) -> DraftState:
        next_token = next_token.reshape(1).to(self.device)
        inputs_embeds = prompt.inputs_embeds.to(device=self.device, dtype=self.dtype)
        features = self.project(prompt.features.to(device=self.device, dtype=self.dtype))
        length = features.shape[1]
        slots = [torch.arange(length, device=self.device)]
        plan = self.plan_rows(inputs_embeds, features, slots, [prompt.visual_spans])
        next_embeds = torch.cat([inputs_embeds[:, 1:], self.embed(next_token, borrowed)[None]], dim=1)
        x = self.row_inputs(plan, take_rows(next_embeds, plan.slots), take_rows(features, plan.slots))
        cache = DrafterCache(len(self.layers), capacity=x.shape[1] + 256)
        hidden = self._run(x, plan.slots + prompt.start_position, self._causal_mask(x, past=0), cache)
        cache.commit()
        return DraftState(
            borrowed=borrowed,
            cache=cache,
            next_position=prompt.start_position + length,
            last_token=next_token,
            last_hidden=hidden[0, -1:],
            image_feature=plan.last_image_feature,
        )

    @torch.no_grad()
    def extend(self, state: DraftState, features: torch.Tensor, next_tokens: torch.Tensor) -> None:
        state.cache.drop_scratch()
        next_tokens = next_tokens.to(self.device)
        features = self.project(features.to(device=self.device, dtype=self.dtype))
        x = self.fuse(self.embed(next_tokens, state.borrowed), features, state.image_feature)
        rows = x.shape[1]
        positions = torch.arange(state.next_position, state.next_position + rows, device=self.device)[None]
        hidden = self._run(x, positions, self._causal_mask(x, state.cache.stable), state.cache)
        state.cache.commit()
        state.next_position += rows
        state.last_token = next_tokens[0, -1:]
        state.last_hidden = hidden[0, -1:]

    @torch.no_grad()
    def propose(self, state: DraftState, budget: DraftBudget, temperature: float | None = None) -> DraftTree:
        if temperature is not None and budget.mode != "chain":
            raise ValueError('drafts are sampled in chains only: pass mode="chain", or temperature=None')
        if budget.levels == 0:
            return DraftTree.root_only(state.last_token)
        first = Rows(state.last_hidden, self.draft_logits(state.last_hidden, state.borrowed))
        step = self._stepper(state)
        chain = (state.last_token, first, step, self.to_target_ids, budget)
        state.cache.drop_scratch()
        try:
            if temperature is not None:
                return sample_chain(*chain, temperature=temperature, vocab_size=state.borrowed.head_size)
            return grow_chain(*chain) if budget.mode == "chain" else self.grow(state.last_token, first, step, budget)
        finally:
            state.cache.drop_scratch()

    def _stepper(self, state: DraftState) -> Step:
        """One draft step on the state's cache: nodes see all stable rows, their ancestors and themselves."""

        def step(tokens: torch.Tensor, features: torch.Tensor, level: int, visible: torch.Tensor) -> Rows:
            x = self.fuse(self.embed(tokens, state.borrowed)[None], features[None], state.image_feature)
            mask = x.new_zeros(len(tokens), state.cache.stable + visible.shape[1])
            mask[:, state.cache.stable :].masked_fill_(~visible, torch.finfo(x.dtype).min)
            position = torch.full((1, 1), state.next_position + level, device=x.device)
            hidden = self._run(x, position, mask[None, None], state.cache)[0]
            return Rows(hidden, self.draft_logits(hidden, state.borrowed))

        return step

    # ---- training -----------------------------------------------------------------------------------------------

    def forward(
        self,
        features: torch.Tensor,
        inputs_embeds: torch.Tensor,
        visual_spans: list[list[tuple[int, int]]] | None = None,
        attention_mask: torch.Tensor | None = None,
        steps: int = 1,
    ) -> DrafterOutput:
        """The training path, with gradients: a plain pass, then `steps - 1` passes on the drafter's own outputs.

        An unrolled step sees exactly what drafting will see: row j of step k takes step k - 1's output of row j - 1
        for its feature, and attends to plain rows up to j - k and to its own drafted ancestors (EAGLE-3's
        training-time test; ViSpec's shortcut mitigation is `steps=2`).

        Args:
            features: `(B, L, F)` target features.
            inputs_embeds: `(B, L, H)` unshifted merged embeddings.
            visual_spans: for each sample its half-open image spans, in order; any number, any lengths.
            attention_mask: `(B, L)`, 0 at padding, on either side.
            steps: passes in all.
        """
        batch, length = inputs_embeds.shape[:2]
        mask = torch.ones(batch, length, device=self.device) if attention_mask is None else attention_mask
        real = mask.bool()
        slots = [(row[:-1] & row[1:]).nonzero()[:, 0] for row in real]
        projected = self.project(features)
        plan = self.plan_rows(inputs_embeds, projected, slots, visual_spans or [[] for _ in slots])
        positions = (real.long().cumsum(1) - 1).gather(1, plan.slots)
        embeddings = take_rows(inputs_embeds.roll(-1, dims=1), plan.slots)
        row_features, cache, outputs = take_rows(projected, plan.slots), UnrollCache(), []
        for step in range(steps):
            x = self.row_inputs(plan, embeddings, row_features)
            hidden = self._run(x, positions, unroll_mask(x, step), cache)
            outputs.append(put_rows(hidden, plan, length))
            row_features = torch.cat([row_features[:, :1], hidden[:, :-1]], dim=1)
        rows = put_rows(torch.ones_like(hidden[..., :1]), plan, length, text_only=True)[..., 0].bool()
        return DrafterOutput(hidden_states=tuple(outputs), rows=rows)

    # ---- shared -------------------------------------------------------------------------------------------------

    def row_inputs(self, plan: RowPlan, embeddings: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """What enters the first layer at the plan's rows: fused text, given visual inputs."""
        x = self.fuse(embeddings, features, plan.image_features)
        if plan.visual_inputs is None:
            return x
        return torch.where(plan.visual[..., None], self.visual_as_inputs(plan.visual_inputs), x)

    def _run(self, x: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor | None, cache) -> torch.Tensor:
        cos_sin = self.rotary_emb(x, positions)
        for layer in self.layers:
            x = layer(x, attention_mask=mask, position_embeddings=cos_sin, cache=cache)
        return x

    def _causal_mask(self, x: torch.Tensor, past: int) -> torch.Tensor | None:
        """Additive `(1, 1, rows, past + rows)`; None where sdpa needs none."""
        rows = x.shape[1]
        if self.config._attn_implementation == "sdpa" and (rows == 1 or past == 0):
            return None
        mask = torch.full((rows, past + rows), torch.finfo(x.dtype).min, dtype=x.dtype, device=x.device)
        return mask.triu_(past + 1)[None, None]


class UnrollCache:
    """Keys and values of the unrolled training steps, side by side, with their gradients."""

    def __init__(self) -> None:
        self._rows: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def update(self, keys: torch.Tensor, values: torch.Tensor, layer_idx: int, **_: object):
        """Append a step; returns all rows of the layer."""
        if layer_idx in self._rows:
            past_keys, past_values = self._rows[layer_idx]
            keys, values = torch.cat([past_keys, keys], dim=2), torch.cat([past_values, values], dim=2)
        self._rows[layer_idx] = (keys, values)
        return keys, values


def unroll_mask(x: torch.Tensor, step: int) -> torch.Tensor:
    """Additive `(1, 1, R, (step + 1) * R)` for unrolled step `step`: plain rows up to j - step, then for each step i
    up to this one the only row that is an ancestor (or self), j - step + i."""
    rows = torch.arange(x.shape[1], device=x.device)
    behind = rows[:, None] - rows[None, :]
    blocks = [behind >= torch.clamp(rows, max=step)[:, None]]  # early rows keep at least row 0
    blocks += [behind == step - i for i in range(1, step + 1)]
    allowed = torch.cat(blocks, dim=1)
    return x.new_zeros(allowed.shape).masked_fill_(~allowed, torch.finfo(x.dtype).min)[None, None]


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
