"""How the features of a compiled target are read: as outputs of its forward, or by hooks outside of what is compiled.

Knows which part of the target is compiled, and nothing about trees, caches or drafters.
"""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel, StaticCache
from transformers.utils.output_capturing import maybe_install_capturing_hooks

from hf_mmspec.modeling.binding import unwrap

from .capture import capture
from .uncompiled import hooks_outside, is_compiled, path_to, uncompiled


class CompiledForward:
    """A target of which the text decoder, or what contains it, is compiled as a whole.

    All hidden states are outputs of the forward. So the compiled graph is the same for every drafter, and does not
    depend on hooks, which Dynamo would ignore or keep depending on when they came.

    Args:
        model: the target, as `generate` sees it.
        forward: called as the model is; by default the model.

    Attributes:
        view: the model uncompiled, for the prefill, whose length differs from request to request.
    """

    def __init__(self, model: PreTrainedModel, forward: Any = None):
        self._forward = model if forward is None else forward
        self._layers = model.config.get_text_config(decoder=True).num_hidden_layers
        self.view = uncompiled(model)
        # Here and not at the first forward, where the installation itself would be traced.
        maybe_install_capturing_hooks(unwrap(model.get_decoder()))

    def __call__(self, inputs: dict[str, Any], feature_layers: Sequence[int] | None) -> tuple[Any, torch.Tensor]:
        """The model's outputs for `inputs`, and the features `(1, n, F)` as `capture` defines them.

        Raises:
            ValueError: the model's class returns no hidden states.
        """
        wants_states = bool(inputs.get("output_hidden_states"))
        outputs = self._forward(**{**inputs, "output_hidden_states": True}, return_dict=True)
        states: tuple[torch.Tensor, ...] = outputs.get("hidden_states") or ()
        if len(states) != self._layers + 1:
            raise ValueError(
                f"a compiled {type(self.view).__name__} returns {len(states)} hidden states of its {self._layers} "
                "layers, so no drafter can read it: leave it uncompiled."
            )
        if not wants_states:
            outputs["hidden_states"] = None
        if feature_layers is None:
            return outputs, states[-1]
        rows = [states[layer] for layer in feature_layers]  # on several devices where the target is
        return outputs, torch.cat([each.to(rows[-1].device) for each in rows], dim=-1)


class CompiledLayers(CompiledForward):
    """A target of which only modules within the text decoder are compiled, such as each of its layers."""

    def __init__(self, model: PreTrainedModel):
        self._forward = hooks_outside(model)
        self.view = uncompiled(model)

    def __call__(self, inputs: dict[str, Any], feature_layers: Sequence[int] | None) -> tuple[Any, torch.Tensor]:
        with capture(self._forward.get_decoder(), feature_layers) as captured, captured.listening():
            outputs = self._forward(**inputs, return_dict=True)
            return outputs, captured.features


def compiled_forward(
    model: PreTrainedModel, generation_config: GenerationConfig, cache: object
) -> CompiledForward | None:
    """What the user has compiled of the text decoder, or what `generate` itself would compile for this request (a
    static cache on an accelerator, or with a `compile_config`); None where it runs as it is. A vision tower may be
    compiled: nothing is read from it."""
    decoder = model.get_decoder()
    if any(is_compiled(module) for module in path_to(model, decoder)):
        return CompiledForward(model)
    if any(is_compiled(module) for module in decoder.modules()):
        return CompiledLayers(model)
    if isinstance(cache, StaticCache) and model._valid_auto_compile_criteria({"cache": cache}, generation_config):
        return CompiledForward(model, model.get_compiled_call(generation_config.compile_config))
    return None
