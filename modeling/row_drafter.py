"""Drafters that read the target row by row into a cache of their own, and draft trees or chains from the last row.

How a level is drafted is elsewhere: by recursion (`autoregressive.py`) or k slots at once (`modeling_flash.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
from transformers.utils import ModelOutput

from .configuration_visual import VisualConfig
from .draft_state import BorrowedParts, DrafterCache, DraftState, SeenImage, TargetPrompt
from .draft_tree import DraftBudget, DraftTree
from .fixed_rows import FixedDrafterCache, run_layers
from .grouped_heads import additive_mask
from .guided_growth import Guidance, behind_run, common_run, follow_guidance
from .row_plan import RowPlan, SlottedBatch, Spans, pad_rows, put_rows, take_rows
from .tree_growth import Rows, Step, grow_chains, grow_trees, sample_chains
from .visual_drafter import VisualDrafter


@dataclass
class DrafterOutput(ModelOutput):
    """Output of the training path.

    Args:
        hidden_states: one `(B, L, H)` for each step, by slot: row j estimates the feature of position j + 1. In step
            k it was drafted from slot j - k, that is from target features up to there. Slots without a row are zero.
        rows: `bool (B, L)`, slots that had a text row.
        keys_values: one `(B, L, layers, 2, kv_heads, head_dim)` for each step, by slot, where they are asked for: keys
            before the rotary embedding, and values, that the step wrote for row j.
    """

    hidden_states: tuple[torch.Tensor, ...] | None = None
    rows: torch.Tensor | None = None
    keys_values: tuple[torch.Tensor, ...] | None = None


@dataclass
class BatchRows:
    """A training batch as rows: its plan, `positions (1 or B, R)`, next tokens' `embeddings` and `features (B, R, H)`,
    and the number of slots."""

    plan: RowPlan
    positions: torch.Tensor
    embeddings: torch.Tensor
    features: torch.Tensor
    length: int

    def from_row(self, first: int) -> "BatchRows":
        """The same without the rows before `first`."""
        plan, positions = self.plan.from_row(first), self.positions[:, first:]
        return BatchRows(plan, positions, self.embeddings[:, first:], self.features[:, first:], self.length)

    def text_rows(self) -> torch.Tensor:
        """`bool (B, length)`: slots that have a text row."""
        ones = torch.ones_like(self.plan.slots, dtype=torch.float32)
        return put_rows(ones, self.plan, self.length, text_only=True).bool()


class RowDrafter(VisualDrafter):
    """`config.num_hidden_layers` decoder layers over one row for each slot that the visual handling leaves.

    Attributes:
        compact_positions: whether rows are numbered 0, 1, ... for the rotary embedding, instead of by their slots.
    """

    config: VisualConfig
    compact_positions = False
    takes_guidance = True

    def __init__(self, config: VisualConfig):
        super().__init__(config)
        self.layers = nn.ModuleList(self.make_layer(i) for i in range(config.num_hidden_layers))
        self.rotary_emb = LlamaRotaryEmbedding(config)
        self.add_visual_part(config)

    # ---- what a family implements -------------------------------------------------------------------------------

    def make_layer(self, index: int) -> nn.Module:
        """The decoder layer `index`, called like transformers' own."""
        raise NotImplementedError

    def fuse(
        self, embeddings: torch.Tensor, features: torch.Tensor, image_features: torch.Tensor | None
    ) -> torch.Tensor:
        """Inputs `(B, R, input width)` of text rows, from embeddings, features (projected, or the drafter's own
        outputs) and broadcast image features."""
        raise NotImplementedError

    def project(self, features: torch.Tensor) -> torch.Tensor:
        """Target features `(B, R, F)` at the drafter's width, `(B, R, H)`."""
        return features

    def visual_as_inputs(self, visual_inputs: torch.Tensor) -> torch.Tensor:
        """Given inputs `(B, R, H)` of visual rows at the width that `fuse` returns."""
        return visual_inputs

    def start_round(self, state: DraftState, levels: int) -> tuple[Rows, Step]:
        """Output for the last token of each row, from which level 1 is read, and the function that drafts further
        levels, which may write scratch into the state's cache."""
        raise NotImplementedError

    @property
    def max_levels(self) -> int | None:
        """Most levels that this drafter can draft in a round; None for any number."""
        return None

    def grow(self, roots: torch.Tensor, first: Rows, step: Step, budgets: Sequence[DraftBudget]) -> list[DraftTree]:
        """The trees of a round, see `grow_trees`."""
        return grow_trees(roots, first, step, self.to_target_ids, budgets)

    # ---- reading the target -------------------------------------------------------------------------------------

    def prefill(self, prompt: TargetPrompt, next_token: torch.Tensor, borrowed: BorrowedParts) -> DraftState:
        return self._read(prompt, next_token, borrowed, None)

    def resume(self, state: DraftState, prompt: TargetPrompt, next_token: torch.Tensor) -> DraftState:
        return self._read(prompt, next_token, state.borrowed, state)

    @torch.no_grad()
    def _read(
        self, prompt: TargetPrompt, next_token: torch.Tensor, borrowed: BorrowedParts, before: DraftState | None
    ) -> DraftState:
        """The state after all rows of `prompt`, which follow those of `before` where a conversation goes on."""
        next_token = next_token.reshape(1).to(self.device)
        inputs_embeds = self.embed_inputs(prompt.inputs_embeds, prompt.input_ids).to(self.device, self.dtype)
        features = self.project(prompt.features.to(device=self.device, dtype=self.dtype))
        slots = [torch.arange(features.shape[1], device=self.device)]
        plan = self.plan_rows(
            SlottedBatch(
                inputs_embeds,
                features,
                slots,
                [prompt.visual_spans],
                image_feature=None if before is None else before.image_feature,
                follows_images=before is not None and bool(before.has_images),
            )
        )
        next_embeds = torch.cat([inputs_embeds[:, 1:], self.embed(next_token, borrowed)[None]], dim=1)
        row_features = plan.features_of_rows(features)
        x = self.row_inputs(plan, take_rows(next_embeds, plan.slots), row_features)
        cache = self._new_cache(capacity=x.shape[1] + 256) if before is None else before.cache
        start = prompt.start_position
        if before is not None and self.is_compact:
            start = before.first_position + len(before.slots)
        hidden = self._run(x, self._numbered(plan.slots) + start, self._causal_mask(x, cache.lengths), cache)
        cache.commit()
        images = [*(() if before is None else before.images), *_seen_images(plan, prompt)]
        return DraftState(
            borrowed=borrowed,
            cache=cache,
            next_positions=[start + (x.shape[1] if self.is_compact else features.shape[1])],
            last_token=next_token,
            # copies, so that the whole prompt's rows are not kept alive
            last_hidden=hidden[0, -1:].clone(),
            last_input=x[:, -1:].clone(),
            last_feature=row_features[0, -1:].clone(),
            image_feature=plan.last_image_feature,
            has_images=bool(images),
            slots=[*(() if before is None else before.slots), *(plan.slots[0] + prompt.start_position).tolist()],
            images=images,
            first_position=start if before is None else before.first_position,
        )

    def extend(self, state: DraftState, features: torch.Tensor, next_tokens: torch.Tensor) -> None:
        self.extend_rows(state, [features], [next_tokens])

    @torch.no_grad()
    def extend_rows(
        self, state: DraftState, features: Sequence[torch.Tensor], next_tokens: Sequence[torch.Tensor]
    ) -> None:
        counts = [tokens.shape[1] for tokens in next_tokens]
        # padded anew: a slice of a longer batch keeps its stride even for one row, and matmul then copies weights
        accepted = pad_rows([each[0].to(device=self.device, dtype=self.dtype) for each in features])
        accepted, tokens = self.project(accepted), pad_rows([each[0].to(self.device) for each in next_tokens])
        x = self.fuse(self.embed(tokens, state.borrowed), accepted, state.image_feature)
        positions = _counted_from(state.next_positions, x.shape[1], self.device)
        with state.cache.appending(counts, self.device):
            hidden = self._run(x, positions, self._causal_mask(x, state.cache.lengths), state.cache)
        state.advance(counts)
        rows, last = range(len(counts)), [count - 1 for count in counts]
        state.last_token = tokens[rows, last]
        state.last_hidden, state.last_feature = hidden[rows, last], accepted[rows, last]
        state.last_input = x[rows, last][:, None]

    def propose(
        self,
        state: DraftState,
        budget: DraftBudget,
        temperature: float | None = None,
        guidance: Guidance | None = None,
    ) -> DraftTree:
        return self.propose_rows(state, [budget], temperature, None if guidance is None else [guidance])[0]

    @torch.no_grad()
    def propose_rows(
        self,
        state: DraftState,
        budgets: Sequence[DraftBudget],
        temperature: float | None = None,
        guidances: Sequence[Guidance | None] | None = None,
    ) -> list[DraftTree]:
        mode = budgets[0].mode
        if temperature is not None and mode != "chain":
            raise ValueError('drafts are sampled in chains only: pass mode="chain", or temperature=None')
        run = common_run(guidances)
        if self.max_levels is not None:
            budgets = [budget.limited_to(self.max_levels - len(run)) for budget in budgets]
        roots = state.last_token.new_tensor(run[-1:]) if run else state.last_token
        levels = max(budget.levels for budget in budgets)
        if levels == 0:
            trees = [DraftTree.root_only(token) for token in roots]
        else:
            state.cache.drop_scratch()
            try:
                first, step = self.start_round(state, len(run) + levels)
                if guidances is not None:
                    first, step = follow_guidance(first, step, guidances, self.to_target_ids)
                chains = (roots, first, step, self.to_target_ids, budgets)
                if temperature is not None:
                    trees = sample_chains(*chains, temperature=temperature, vocab_size=state.borrowed.head_size)
                else:
                    trees = grow_chains(*chains) if mode == "chain" else self.grow(roots, first, step, budgets)
            finally:
                state.cache.drop_scratch()
        return [behind_run(root, run, tree) for root, tree in zip(state.last_token[:, None], trees, strict=True)]

    def join(self, states: Sequence[DraftState]) -> DraftState:
        return DraftState.join(states)

    def select(self, state: DraftState, rows: Sequence[int]) -> DraftState:
        state.select(rows)
        return state

    # ---- training -----------------------------------------------------------------------------------------------

    def batch_rows(
        self,
        features: torch.Tensor,
        inputs_embeds: torch.Tensor,
        visual_spans: list[Spans] | None,
        attention_mask: torch.Tensor | None,
    ) -> BatchRows:
        """A training batch as rows; arguments as in `forward`. The last real slot of a sample has no next embedding,
        hence no row."""
        batch, length = inputs_embeds.shape[:2]
        mask = torch.ones(batch, length, device=self.device) if attention_mask is None else attention_mask
        real = mask.bool()
        slots = [(row[:-1] & row[1:]).nonzero()[:, 0] for row in real]
        projected = self.project(features)
        plan = self.plan_rows(SlottedBatch(inputs_embeds, projected, slots, visual_spans or [[] for _ in slots]))
        positions = self._numbered((real.long().cumsum(1) - 1).gather(1, plan.slots))
        embeddings = take_rows(inputs_embeds.roll(-1, dims=1), plan.slots)
        return BatchRows(plan, positions, embeddings, plan.features_of_rows(projected), length)

    def row_inputs(self, plan: RowPlan, embeddings: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """What enters the first layer at the plan's rows: fused text, given visual inputs."""
        x = self.fuse(embeddings, features, plan.image_features)
        if plan.visual_inputs is None:
            return x
        return torch.where(plan.visual[..., None], self.visual_as_inputs(plan.visual_inputs), x)

    def _numbered(self, positions: torch.Tensor) -> torch.Tensor:
        return torch.arange(positions.shape[1], device=self.device)[None] if self.is_compact else positions

    @property
    def is_compact(self) -> bool:
        """Whether the family or the visual handling numbers rows 0, 1, ..."""
        return self.compact_positions or self.image_adaptor.compact_positions

    def compile(self, *args, **kwargs) -> None:
        """As `nn.Module.compile`, for what drafting runs: the layers. Steps are rounded up to a few shapes then, so
        recompiles are few. Several rows at once run uncompiled. (`torch.compile(drafter)` compiles `forward` alone,
        the training path.)"""
        for layer in self.layers:
            layer.compile(*args, **kwargs)

    def _new_cache(self, capacity: int) -> DrafterCache:
        is_compiled = any(layer._compiled_call_impl is not None for layer in self.layers)
        return (FixedDrafterCache if is_compiled else DrafterCache)(len(self.layers), capacity)

    def _run(self, x: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor | None, cache) -> torch.Tensor:
        return self._run_turned(x, self.rotary_emb(x, positions), mask, cache)

    def _run_turned(
        self, x: torch.Tensor, cos_sin: tuple[torch.Tensor, torch.Tensor], mask: torch.Tensor | None, cache
    ) -> torch.Tensor:
        """The layers, given rotary tables `(B or 1, rows or 1, head_dim)`."""
        if isinstance(cache, FixedDrafterCache):
            return run_layers(self.layers, x, cos_sin, mask, cache)
        is_drafting = isinstance(cache, DrafterCache)  # of several rows, where layers are compiled
        for layer in self.layers:
            call = layer._call_impl if is_drafting else layer
            x = call(x, attention_mask=mask, position_embeddings=cos_sin, cache=cache)
        return x

    def _causal_mask(self, x: torch.Tensor, past: Sequence[int]) -> torch.Tensor | None:
        """Additive `(B, 1, rows, longest past + rows)` for rows that follow `past[b]` others in row b of the batch;
        None where sdpa needs none."""
        rows, is_even = x.shape[1], len(set(past)) == 1
        if self.config._attn_implementation == "sdpa" and is_even and (rows == 1 or past[0] == 0):
            return None
        columns = torch.arange(max(past) + rows, device=x.device)
        hidden = columns > _counted_from(past, rows, x.device)[..., None]
        return additive_mask(hidden, x.dtype)

    def _beyond_row(self, cache: DrafterCache) -> torch.Tensor:
        """`bool (B, 1, stable)`: True at columns that only longer rows have."""
        lengths = torch.tensor(cache.lengths, device=self.device)
        return (torch.arange(cache.stable, device=self.device) >= lengths[:, None])[:, None]

    def _scratch_mask(self, x: torch.Tensor, beyond_row: torch.Tensor, visible: torch.Tensor) -> torch.Tensor | None:
        """Additive `(B, 1, n, stable + scratch)`: all that is known of a row, and of its scratch what is `visible`,
        `bool (B, n, scratch)`. None where all is seen, as in a chain of one row; where asking would mean
        to wait for a device, the mask is cheaper."""
        if visible.shape[:2] == (1, 1) and visible.device.type == "cpu" and bool(visible.all()):
            return None
        hidden = beyond_row.expand(-1, visible.shape[1], -1)
        return additive_mask(torch.cat([hidden, ~visible], dim=-1), x.dtype)


def _counted_from(starts: Sequence[int], count: int, device: torch.device) -> torch.Tensor:
    """`int64 (B, count)`: starts[b], starts[b] + 1, ..."""
    if len(starts) == 1:
        return torch.arange(starts[0], starts[0] + count, device=device)[None]
    return torch.tensor(starts, device=device)[:, None] + torch.arange(count, device=device)


def _seen_images(plan: RowPlan, prompt: TargetPrompt) -> list[SeenImage]:
    """The images of `prompt`, each with the global feature that is in force behind it."""
    seen = []
    for _, stop in prompt.visual_spans:
        feature = None
        if plan.image_features is not None:
            row = int((plan.slots[0] < stop - 1).sum())
            feature = plan.image_features[:, row : row + 1].clone()
        seen.append(SeenImage(prompt.start_position + stop, feature))
    return seen
