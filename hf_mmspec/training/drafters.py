"""Untrained drafters, as a recipe describes them.

Knows recipes and the target; trains nothing.
"""

from collections.abc import Iterable
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError

from hf_mmspec.modeling import FAMILIES, Drafter
from hf_mmspec.modeling.binding import unwrap

from .features.target_layer import TargetLayerError, shape_of
from .learning.losses import FEATURE_REGRESSION
from .learning.vocabulary import draft_vocabulary
from .recipes.recipe import Recipe, RecipeError, in_one_line


def untrained(recipe: Recipe, model: Any, processor: Any, said: Iterable[torch.Tensor]) -> Drafter:
    """A drafter of the target, in float32.

    Args:
        model, processor: the target.
        said: answers, `int64 (n,)` each, whose most frequent tokens become the draft vocabulary where the recipe asks
            for one.

    Raises:
        RecipeError: the drafter's fields do not fit together or not the target; the recipe's loss compares states, and
            the drafter has another width than the target; or it compares keys and values, and those have other shapes.
    """
    fields = dict(recipe.drafter)
    text = unwrap(model).config.get_text_config(decoder=True)
    width = fields.get("hidden_size", text.hidden_size)
    if width != text.hidden_size and any(FEATURE_REGRESSION in stage.loss for stage in recipe.stages):
        raise RecipeError(
            f"a drafter of width {width} has no states to compare with those of a target of {text.hidden_size}: leave "
            f"{FEATURE_REGRESSION} out of the loss"
        )
    real = fields.setdefault("real_vocab_size", min(len(processor.tokenizer), text.vocab_size))
    token_ids = None
    if fields.get("draft_vocab_size"):
        size = min(fields.pop("draft_vocab_size"), real)
        token_ids = draft_vocabulary((answer.tolist() for answer in said), size, real)
    drafter = _built(recipe, model, fields, token_ids).float()
    if recipe.kv_layer is not None:
        insist_on_same_keys(drafter, model, recipe.kv_layer)
    return drafter


def insist_on_same_keys(drafter: Drafter, model: Any, layer: int) -> None:
    """Raises RecipeError where keys and values of the drafter and of the target's `layer` cannot be compared."""
    try:
        wanted = shape_of(model, layer)
    except TargetLayerError as error:
        raise RecipeError(f'kv_loss_target "target_layer": {error}, or take "self"') from error
    config = drafter.config
    if (config.num_key_value_heads, config.head_dim) != wanted:
        raise RecipeError(
            f'kv_loss_target "target_layer": the drafter has {config.num_key_value_heads} key heads of size '
            f"{config.head_dim}, the target's layer {layer} has {wanted[0]} of {wanted[1]}: set "
            f'drafter.num_key_value_heads={wanted[0]} and drafter.head_dim={wanted[1]}, or take "self"'
        )


def layers_of(recipe: Recipe, model: Any) -> tuple[int, ...] | None:
    """The target's layers that this recipe's drafter reads, see `Drafter.feature_layers`. Raises as `untrained`."""
    fields = {**recipe.drafter, "draft_vocab_size": 1}  # the smallest head: only the layers are asked for
    return _built(recipe, model, fields).feature_layers_of(model)


def _built(recipe: Recipe, model: Any, fields: dict[str, Any], token_ids: torch.Tensor | None = None) -> Drafter:
    """The drafter of these fields; what a config or its layers say against one becomes a RecipeError."""
    try:
        return FAMILIES[recipe.family][1].from_target(model, token_ids, **fields)
    except (StrictDataclassError, ValueError, KeyError) as error:
        raise RecipeError(f"drafter: {in_one_line(error)}") from error
