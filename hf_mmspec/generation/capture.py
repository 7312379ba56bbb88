"""Reads what passes through the target's text decoder: merged embeddings on the way in, features on the way out.

Only looks: it changes no value, stores nothing on the model, and its hooks are gone when the `with` block ends.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import nn


@dataclass
class Captured:
    """What the forwards since the last `clear` had: embeddings `(1, n, H)` and features `(1, n, F)`."""

    embeds_chunks: list[torch.Tensor] = field(default_factory=list)
    feature_chunks: list[torch.Tensor] = field(default_factory=list)
    tap_rows: dict[int, torch.Tensor] = field(default_factory=dict)
    is_listening: bool = False

    @property
    def inputs_embeds(self) -> torch.Tensor:
        return _joined(self.embeds_chunks)

    @property
    def features(self) -> torch.Tensor:
        return _joined(self.feature_chunks)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Record what runs inside the `with` block. A logits processor may run the model too (classifier-free guidance
        does), and those rows are not the request's."""
        self.is_listening = True
        try:
            yield
        finally:
            self.is_listening = False

    def clear(self) -> None:
        """Drop everything, so that no tensor of an earlier forward stays alive."""
        self.embeds_chunks.clear()
        self.feature_chunks.clear()
        self.tap_rows.clear()


def _joined(chunks: list[torch.Tensor]) -> torch.Tensor:
    """One tensor; a single chunk is not copied, since prompts can be long."""
    if not chunks:
        raise ValueError(
            "the target's text decoder ran without its hooks, so a drafter cannot read it: is it compiled or wrapped "
            "in a way that hides it? Load it without."
        )
    return chunks[0] if len(chunks) == 1 else torch.cat(chunks, dim=1)


@contextmanager
def capture(decoder: nn.Module, feature_layers: Sequence[int] | None) -> Iterator[Captured]:
    """Record the forwards of `decoder` that this thread makes inside the `with` block while `listening()`.

    Args:
        decoder: the text decoder (`model.get_decoder()`); called with `inputs_embeds` or `input_ids`.
        feature_layers: `None` for the last hidden state after the final norm (EAGLE-1/2, MSD, ViSpec, FLASH), or
            indices of decoder layers whose inputs are concatenated (EAGLE-3): `hidden_states[i]` in transformers.
    """
    captured, owner = Captured(), threading.get_ident()
    # Gemma 3n hands several streams `(streams, 1, n, H)` from layer to layer, one of which a layer really computes.
    stream = getattr(getattr(decoder, "config", None), "altup_active_idx", 0)

    def is_mine() -> bool:
        # Another thread may run the same model: its rows belong to its own request. Where it sets or removes its hooks
        # while this thread is between two of them, torch calls those without the forward's keyword arguments.
        return captured.is_listening and threading.get_ident() == owner

    def before(module, args, kwargs=None):
        if is_mine():
            embeds = kwargs.get("inputs_embeds")
            if embeds is None:
                embeds = module.get_input_embeddings()(kwargs["input_ids"] if "input_ids" in kwargs else args[0])
            captured.embeds_chunks.append(embeds)

    def tap(index):
        def before_layer(module, args, kwargs=None):
            if is_mine():
                rows = args[0] if args else kwargs["hidden_states"]
                captured.tap_rows[index] = rows if rows.dim() == 3 else rows[stream]

        return before_layer

    def after(module, args, *kwargs_and_output):
        if not is_mine():
            return
        if feature_layers is None:
            captured.feature_chunks.append(kwargs_and_output[-1][0])
        else:
            rows = [captured.tap_rows[index] for index in feature_layers]  # on several devices where the target is
            captured.feature_chunks.append(torch.cat([each.to(rows[-1].device) for each in rows], dim=-1))
            captured.tap_rows.clear()  # joined; a long prompt should not be held twice

    handles = [
        decoder.register_forward_pre_hook(before, with_kwargs=True),
        decoder.register_forward_hook(after, with_kwargs=True),
    ]
    for index in dict.fromkeys(feature_layers or ()):
        layers = cast(nn.ModuleList, decoder.layers)
        handles.append(layers[index].register_forward_pre_hook(tap(index), with_kwargs=True))
    try:
        yield captured
    finally:
        for handle in handles:
            handle.remove()
        captured.clear()
