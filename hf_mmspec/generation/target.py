"""One request's view of the target: prefill, verify a tree in one forward, keep the accepted path.

Adapts any decoder-only `*ForConditionalGeneration` or causal LM through transformers' own methods; copies no model
and knows no family. Chooses no token.
"""

from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache, GenerationConfig, PreTrainedModel

from hf_mmspec.modeling import DraftTree, TargetPrompt

from .answer import StepStates
from .cache import TreeCache
from .capture import Captured
from .rope_border import exact_levels
from .tree_mask import LayerWindows, tree_attention_mask
from .visual_spans import find_visual_spans

# Rows of the cache for a request without a length limit of its own; more room is made when it runs out.
_FIRST_GUESS_OF_NEW_TOKENS = 1024
# Inputs with one entry per token: the tokens of a tree are text, so theirs are zeros.
_TOKEN_TYPES = ("token_type_ids", "mm_token_type_ids")


@dataclass
class Verified:
    """The target's judgement of a tree with n nodes: `logits (n, V)`, `features (1, n, F)`, optional states (None for
    layers that were not asked for)."""

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
                None if layer is None else layer[:, node : node + 1].clone() for layer in self.hidden_states
            )
        if self.attentions is not None:
            path = self.past_length + self.ancestors[node].nonzero().flatten()
            columns = torch.cat([torch.arange(self.past_length, device=path.device), path])
            attentions = tuple(
                None if layer is None else layer[:, :, node : node + 1, columns] for layer in self.attentions
            )
        return StepStates(hidden, attentions)


class Target:
    """The target model with one request's cache and positions.

    Args:
        model: the target, as `generate` sees it.
        model_kwargs: `generate`'s keyword arguments for the forward; its DynamicCache stays untouched until `finish`.
        room: rows that the cache should have beyond the prompt, tree nodes included.
    """

    def __init__(self, model: PreTrainedModel, model_kwargs: dict[str, Any], captured: Captured, room: int):
        self.model = model
        self._kwargs = dict(model_kwargs)
        self._captured = captured
        self._given_cache: DynamicCache = model_kwargs["cache"]
        self._config = model.config.get_text_config(decoder=True)
        self._windows = LayerWindows.of(self._config)
        self._past_length = self._given_cache.get_seq_length()
        self._room = room

    def prefill(self, input_ids: torch.Tensor, generation_config: GenerationConfig):
        """Run the prompt `(1, L)` through the stock prefill.

        Returns:
            The model's outputs (logits of the last position, states) and the `TargetPrompt` for the drafter.
        """
        # A cache from a config has its layers already, an empty DynamicCache() of the user does not.
        num_layers = self._config.num_hidden_layers
        given = input_ids if self._kwargs.get("inputs_embeds") is None else self._kwargs["inputs_embeds"]
        capacity = max(given.shape[1], self._past_length) + min(self._room, _FIRST_GUESS_OF_NEW_TOKENS)
        self.cache = TreeCache.from_dynamic(self._given_cache, num_layers, capacity)
        self._kwargs["cache"] = self.cache
        with self._captured.listening():
            outputs = self.model._prefill(input_ids, generation_config, self._kwargs)
        if outputs.get("cache") is not self.cache:
            raise ValueError(
                f"{type(self.model).__name__} did not keep the prompt in the cache it was given (Phi-3 does so beyond "
                "its original length): generate without `assistant_model`."
            )
        prompt = self._prompt(input_ids)
        self._device, self._dtype = prompt.inputs_embeds.device, prompt.inputs_embeds.dtype
        self._remember_positions()
        self._captured.clear()
        return outputs, prompt

    def _prompt(self, input_ids: torch.Tensor) -> TargetPrompt:
        """What the drafter gets: only rows that this prefill computed, without padding."""
        embeds, features = self._captured.inputs_embeds, self._captured.features
        count = embeds.shape[1]
        ids = input_ids[:, -count:] if input_ids.shape[1] >= count else None
        mask = self._kwargs.get("attention_mask")
        start = self._past_length
        if mask is not None:
            start = int(mask[:, : self._past_length].sum())
            real = mask[0, -count:].bool()
            if not real.all():
                embeds, features = embeds[:, real.to(embeds.device)], features[:, real.to(features.device)]
                ids = None if ids is None else ids[:, real.to(ids.device)]
        spans = (
            [] if ids is None else find_visual_spans(ids[0], self.model.config, self._kwargs.get("mm_encoder_outputs"))
        )
        return TargetPrompt(ids, embeds, features, spans, start)

    def _remember_positions(self) -> None:
        """Positions go on from the prompt's last ones, in every row that the family has (M-RoPE has four)."""
        self._last_position = self._kwargs["position_ids"][..., -1:]
        self._largest_position = int(self._last_position.max())
        self._length = self.cache.get_seq_length()
        mask = self._kwargs.get("attention_mask")
        self._padding = None if mask is None or bool(mask.all()) else mask[0] == 0

    def exact_levels(self, levels: int) -> int:
        """At most `levels`: how deep the next tree may be and still be computed as token by token."""
        return exact_levels(self._config, self._largest_position + 1, levels)

    def verify(self, tree: DraftTree) -> Verified:
        """One forward over all nodes of `tree`, on top of the cache, each node seeing only its own path."""
        with self._captured.listening():
            outputs = self.model(**self._verify_inputs(tree), return_dict=True)
        features = self._captured.features
        self._captured.clear()
        ancestors = tree.ancestor_mask()
        return Verified(
            outputs.logits[0],
            features,
            self._length,
            ancestors,
            outputs.get("hidden_states"),
            outputs.get("attentions"),
        )

    def _verify_inputs(self, tree: DraftTree) -> dict[str, Any]:
        device = self._device
        hidden_columns = None
        if self._padding is not None:
            hidden_columns = torch.nn.functional.pad(self._padding, (0, self._length - self._padding.shape[0]))
        kwargs = {
            name: value for name, value in self._kwargs.items() if name not in ("attention_mask", "position_ids")
        }
        kwargs["logits_to_keep"] = 0
        for name in _TOKEN_TYPES:
            if kwargs.get(name) is not None:
                kwargs[name] = torch.zeros((1, len(tree)), dtype=kwargs[name].dtype, device=device)
        mask = None  # a step of plain decoding, as `generate` makes it
        if len(tree) > 1 or hidden_columns is not None or self._windows.window is not None:
            mask = tree_attention_mask(tree, self._length, hidden_columns, self._windows, self._dtype, device)
        positions = (self._last_position + 1).to(device) + tree.depths.to(device)
        return self.model.prepare_inputs_for_generation(
            tree.tokens[None].to(device),
            attention_mask=mask,
            position_ids=positions,
            is_first_iteration=False,
            **kwargs,
        )

    def keep(self, path: list[int]) -> None:
        """Keep the rows of `path` (node indices, root first) and drop the other nodes."""
        if path != list(range(len(path))):
            self.cache.keep(self._length, torch.tensor(path))
        self._length += len(path)
        self._last_position = self._last_position + len(path)
        self._largest_position += len(path)
        self.cache.truncate(self._length)

    def finish(self, cache_is_wanted: bool) -> DynamicCache:
        """The cache as `generate` returns it; filled only where somebody can see it."""
        if cache_is_wanted:
            self.cache.copy_to(self._given_cache)
        return self._given_cache
