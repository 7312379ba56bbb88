"""One request's view of the target: prefill, verify a tree for each row in one forward, keep the accepted paths.

Adapts any decoder-only `*ForConditionalGeneration` or causal LM through transformers' own methods; copies no model
and knows no family. Chooses no token.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import Cache, GenerationConfig, PreTrainedModel

from hf_mmspec.modeling import DraftTree, TargetPrompt

from .answer import StepStates, attentions_of_row, states_of_row
from .cache import TreeCache
from .capture import Captured
from .conversation_cache import ConversationCache
from .decoder_masks import Masks, mask_for_wrapper, masks_for_decoder
from .rope_border import exact_levels, is_exact_for
from .tree_batch import TreeBatch
from .tree_mask import LayerWindows, tree_attention_mask
from .visual_spans import find_spans_of_rows

# Columns of the cache for a request without a length limit of its own; more room is made when it runs out.
_FIRST_GUESS_OF_NEW_TOKENS = 1024
# Inputs with one entry per token: the tokens of a tree are text, so theirs are zeros.
_TOKEN_TYPES = ("token_type_ids", "mm_token_type_ids")
# Inputs of the prompt that `generate` hands to every forward (Phi-4): a drafted placeholder must not ask for them.
_PROMPT_ONLY = ("image_pixel_values", "audio_input_features")


@dataclass
class Verified:
    """The target's judgement of one row's tree with n nodes: `logits (n, V)`, `features (1, n, F)`, optional states
    (None for layers that were not asked for)."""

    logits: torch.Tensor
    features: torch.Tensor
    past_length: int
    ancestors: torch.Tensor
    hidden_states: tuple[torch.Tensor | None, ...] | None
    attentions: tuple[torch.Tensor | None, ...] | None

    def states(self, node: int) -> StepStates:
        """Hidden states and attentions at `node`, shaped as a step of `generate` would give them."""
        hidden = attentions = None
        if self.hidden_states is not None:
            # Copies: a view would keep the whole tree's states alive for as long as the answer.
            hidden = tuple(
                None if layer is None else layer[..., node : node + 1, :].clone() for layer in self.hidden_states
            )
        if self.attentions is not None:
            path = self.past_length + self.ancestors[node].nonzero().flatten()
            columns = torch.cat([torch.arange(self.past_length, device=path.device), path])
            attentions = tuple(
                None if layer is None else layer[:, :, node : node + 1, columns] for layer in self.attentions
            )
        return StepStates(hidden, attentions)


class Target:
    """The target model with one request's cache and positions, row by row.

    Args:
        model: the target, as `generate` sees it.
        model_kwargs: `generate`'s keyword arguments for the forward; its cache stays untouched until `finish`, save a
            ConversationCache, which is used as it is (of one row).
        room: columns that the cache should have beyond the prompt, tree nodes included.
        cache_is_wanted: whether somebody will see the cache that `finish` returns.
    """

    cache_class = TreeCache

    def __init__(
        self,
        model: PreTrainedModel,
        model_kwargs: dict[str, Any],
        captured: Captured,
        room: int,
        cache_is_wanted: bool,
    ):
        self.model = model
        self._kwargs = dict(model_kwargs)
        self._captured = captured
        self._given_cache: Cache = model_kwargs["cache"]
        self._config = model.config.get_text_config(decoder=True)
        self._windows = LayerWindows.of(self._config)
        self._past_length = int(self._given_cache.get_seq_length())
        self._room = room
        self._cache_is_wanted = cache_is_wanted

    def prefill(self, input_ids: torch.Tensor, generation_config: GenerationConfig):
        """Run the prompts `(B, L)` through the stock prefill.

        Returns:
            The model's outputs (logits of the last position, states) and for each row the `TargetPrompt` for the
            drafter.
        """
        # A cache from a config has its layers already, an empty DynamicCache() of the user does not.
        num_layers = self._config.num_hidden_layers
        given = input_ids if self._kwargs.get("inputs_embeds") is None else self._kwargs["inputs_embeds"]
        capacity = max(given.shape[1], self._past_length) + min(self._room, _FIRST_GUESS_OF_NEW_TOKENS)
        self.cache: TreeCache
        if isinstance(self._given_cache, ConversationCache):
            self.cache = self._given_cache
        else:
            self.cache = self.cache_class.from_dynamic(self._given_cache, num_layers, capacity)
        self._kwargs["cache"] = self.cache
        if self._windows.has_shared:
            # An integer lets such layers leave out all prompt rows but the last, and drafters read all of them.
            self._kwargs["logits_to_keep"] = torch.tensor([-1], device=given.device)
        with self._captured.listening():
            outputs = self.model._prefill(input_ids, generation_config, self._kwargs)
        if outputs.get("cache") is not self.cache:
            raise ValueError(
                f"{type(self.model).__name__} did not keep the prompt in the cache it was given (Phi-3 does so beyond "
                "its original length): generate without `assistant_model`."
            )
        prompts = self._prompts(input_ids)
        self._device, self._dtype = prompts[0].inputs_embeds.device, prompts[0].inputs_embeds.dtype
        self._remember_positions(len(prompts))
        self._captured.clear()
        return outputs, prompts

    def _prompts(self, input_ids: torch.Tensor) -> list[TargetPrompt]:
        """What the drafter gets of each row: only what this prefill computed, without padding."""
        embeds, features = self._captured.inputs_embeds, self._captured.features
        batch, count = embeds.shape[:2]
        ids = input_ids[:, -count:] if input_ids.shape[1] >= count else None
        mask = self._kwargs.get("attention_mask")
        starts = [self._past_length] * batch
        real: list[torch.Tensor | None] = [None] * batch
        if mask is not None:
            starts = mask[:, : self._past_length].sum(-1).tolist()
            real = [None if row.all() else row for row in mask[:, -count:].bool()]
        spans: list[list[tuple[int, int]]] = [[] for _ in range(batch)]
        rows: list[torch.Tensor | None] = [None] * batch
        if ids is not None:
            own = [_real(ids[row : row + 1], real[row]) for row in range(batch)]
            rows = [*own]
            encoded = self._kwargs.get("mm_encoder_outputs")
            positions = self._kwargs["position_ids"][..., -count:]
            grids = None
            if positions.dim() == 3:  # M-RoPE
                positions = positions.expand(-1, batch, -1)
                grids = [_real(each[..., None], real[row])[..., 0] for row, each in enumerate(positions.unbind(1))]
            spans = find_spans_of_rows([each[0] for each in own], self.model.config, encoded, grids)
        return [
            TargetPrompt(
                rows[row],
                _real(embeds[row : row + 1], real[row]),
                _real(features[row : row + 1], real[row]),
                spans[row],
                starts[row],
            )
            for row in range(batch)
        ]

    def _remember_positions(self, batch: int) -> None:
        """Positions go on from the prompt's last ones, in every row that the family has (M-RoPE has four)."""
        last = self._kwargs["position_ids"][..., -1:]
        self._last_position = last.expand(*last.shape[:-2], batch, 1)
        self._largest_positions = self._last_position.reshape(-1, batch).amax(0).tolist()
        self._batch, self._prompt_length = batch, self.cache.get_seq_length()
        self._lengths = [self._prompt_length] * batch
        first, self._longest = min(self._largest_positions), max(self._largest_positions)
        self._in_step = batch > 1 and not is_exact_for(self._config, first + 1, self._longest - first + self._room)
        mask = self._kwargs.get("attention_mask")
        self._padding = None if mask is None or bool(mask.all()) else mask == 0

    def exact_levels(self, row: int, levels: int) -> int:
        """At most `levels`: how deep the next tree of a row may be and still be computed as token by token.

        In a batch the longest row decides the frequencies of all, so rows go in step where these may change.
        """
        if self._in_step:
            return 0
        return exact_levels(self._config, self._largest_positions[row] + 1, levels)

    def verify(self, trees: Sequence[DraftTree]) -> list[Verified]:
        """One forward over all nodes of all rows' trees, on top of the cache, each node seeing only its own path."""
        batch = TreeBatch.of(trees, spare=int(self._in_step))
        self.cache.go_on_after(self._lengths, batch.tokens.shape[1])
        masks = None if self._is_plain_step(batch) else self._tree_masks(batch)
        inputs = self._verify_inputs(batch, mask_for_wrapper(masks, self.model.config))
        with masks_for_decoder(self.model.get_decoder(), masks, self.model.config), self._captured.listening():
            outputs = self.model(**inputs, return_dict=True)
        features = self._captured.features
        self._captured.clear()
        return self._verified(trees, batch, outputs, features)

    def _verified(
        self, trees: Sequence[DraftTree], batch: TreeBatch, outputs: Any, features: torch.Tensor
    ) -> list[Verified]:
        return [
            Verified(
                outputs.logits[row, : len(tree)],
                features[row : row + 1, : len(tree)],
                self._lengths[row],
                batch.ancestors[row, : len(tree), : len(tree)],
                states_of_row(outputs.get("hidden_states"), row),
                attentions_of_row(outputs.get("attentions"), row),
            )
            for row, tree in enumerate(trees)
        ]

    def _is_plain_step(self, trees: TreeBatch) -> bool:
        """Whether it is a step of plain decoding, which `generate` makes without a mask too."""
        return trees.tokens.shape == (1, 1) and self._padding is None and self._windows.window is None

    def _tree_masks(self, trees: TreeBatch) -> Masks:
        return tree_attention_mask(trees, self._lengths, self._padding, self._windows, self._dtype, self._device)

    def _verify_inputs(self, trees: TreeBatch, mask: Any) -> dict[str, Any]:
        device = self._device
        left_out = ("attention_mask", "position_ids", *_PROMPT_ONLY)
        kwargs = {name: value for name, value in self._kwargs.items() if name not in left_out}
        kwargs["logits_to_keep"] = 0
        for name in _TOKEN_TYPES:
            if kwargs.get(name) is not None:
                kwargs[name] = self._types_of_new(name, trees.tokens.shape, device)
        positions = (self._last_position + 1).to(device) + trees.depths.to(device)
        if self._in_step:  # the longest row counts in `generate` even after its end: a padding node stands for it
            self._longest += 1
            positions[..., -1] = self._longest
        return self.model.prepare_inputs_for_generation(
            trees.tokens.to(device),
            attention_mask=mask,
            position_ids=positions,
            is_first_iteration=False,
            **kwargs,
        )

    def _types_of_new(self, name: str, shape: torch.Size, device: torch.device) -> torch.Tensor:
        """The types of new tokens: text for `mm_token_type_ids`; else those of each prompt's last token, as stock."""
        types = self._kwargs[name]
        if name == "mm_token_type_ids":
            return torch.zeros(shape, dtype=types.dtype, device=device)
        return types[:, -1:].to(device).expand(shape)

    def keep(self, paths: Sequence[Sequence[int]]) -> None:
        """Keep the nodes of each row's path (indices, root first) and drop the others."""
        self.cache.keep(self._lengths, paths)
        counts = [len(path) for path in paths]
        self._lengths = [length + count for length, count in zip(self._lengths, counts, strict=True)]
        self._last_position = self._last_position + torch.tensor(counts, device=self._last_position.device)[:, None]
        self._largest_positions = [at + count for at, count in zip(self._largest_positions, counts, strict=True)]

    def select(self, rows: Sequence[int]) -> None:
        """Go on with the given rows only, numbered anew; the others have ended."""
        self.cache.select(rows, self._lengths, self._cache_is_wanted)
        self._lengths = [self._lengths[row] for row in rows]
        self._largest_positions = [self._largest_positions[row] for row in rows]
        self._last_position = self._last_position[..., list(rows), :]
        self._padding = None if self._padding is None else self._padding[list(rows)]
        if self._kwargs.get("token_type_ids") is not None:
            self._kwargs["token_type_ids"] = self._kwargs["token_type_ids"][list(rows)]

    def finish(self, new_tokens: int) -> Cache:
        """The cache as `generate` returns it after so many new tokens; filled only where somebody can see it."""
        if self._cache_is_wanted and not isinstance(self._given_cache, ConversationCache):
            if self._batch > 1:
                self.cache.restore(self._lengths, self._prompt_length + new_tokens - 1)
            self.cache.copy_to(self._given_cache)
        return self._given_cache


def _real(values: torch.Tensor, real: torch.Tensor | None) -> torch.Tensor:
    """Of `values (1, n, ...)` those at real tokens, all where there is no padding."""
    return values if real is None else values[:, real.to(values.device)]
