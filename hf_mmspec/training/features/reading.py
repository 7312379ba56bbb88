"""Reads an answer with the target, once, and keeps what a drafter learns from: one forward for a batch.

Knows neither drafters nor files; which hidden states are wanted is said in numbers.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from hf_mmspec.data import Conversation, PictureError, model_inputs
from hf_mmspec.generation.capture import capture
from hf_mmspec.generation.visual_spans import find_visual_spans
from hf_mmspec.modeling.binding import unwrap

from .record import Record
from .target_layer import reading_layer


class OtherPromptError(ValueError):
    """The processor makes other tokens of a prompt than when it was answered; the message names the fix."""


@dataclass(frozen=True)
class Answered:
    """A conversation with its answer: `ids`, of which `prompt_length` are the prompt's (visual ones expanded)."""

    conversation: Conversation
    ids: Sequence[int]
    prompt_length: int


@dataclass(frozen=True)
class Reader:
    """The target as it reads answers.

    Args:
        model, processor: the target; frozen, quantised or not.
        feature_layers: what the drafter reads, see `Drafter.feature_layers`.
        dtype: of what is kept; None for the target's own.
        kv_layer: layer whose keys and values are wanted too, see `Record.keys_values`.
    """

    model: Any
    processor: Any
    feature_layers: tuple[int, ...] | None = None
    dtype: torch.dtype | None = None
    kv_layer: int | None = None

    @torch.no_grad()
    def read(self, answered: Sequence[Answered]) -> list[Record]:
        """The records of a batch, on the target's device.

        Raises:
            OtherPromptError: the prompt's tokens are not those that were answered.
            PictureError: a picture cannot be opened any more.
        """
        rows = [torch.tensor(each.ids) for each in answered]
        inputs = self._same_prompts(answered, rows)
        inputs = lengthened(inputs, rows).to(self.model.device, self.model.dtype)
        decoder = unwrap(self.model).get_decoder()
        with ExitStack() as hooks:
            states = hooks.enter_context(capture(decoder, None))
            taps = (
                states if self.feature_layers is None else hooks.enter_context(capture(decoder, self.feature_layers))
            )
            layer = None if self.kv_layer is None else hooks.enter_context(reading_layer(self.model, self.kv_layer))
            for each in {id(states): states, id(taps): taps}.values():
                hooks.enter_context(each.listening())
            outputs = self.model(**inputs, logits_to_keep=1, use_cache=False)
            sizes = image_sizes(outputs, [len(each.conversation.pictures) for each in answered])
            # once for the batch: each access makes a copy of all of it
            last, embeds = states.features, states.inputs_embeds
            read = last if taps is states else taps.features
        found = [self._record(each, rows[i], read[i], last[i], embeds[i], sizes[i]) for i, each in enumerate(answered)]
        if layer is not None:
            for record, keys_values in zip(found, layer.keys_values, strict=True):
                record.keys_values = keys_values[: len(record.ids) - 1].to(self.dtype or keys_values.dtype)
        return found

    def _record(
        self,
        answered: Answered,
        ids: torch.Tensor,
        features: torch.Tensor,
        states: torch.Tensor,
        embeds: torch.Tensor,
        sizes: list[int] | None,
    ) -> Record:
        encoded = (
            None if sizes is None else {"image": SimpleNamespace(pooler_output=[torch.empty(n, 0) for n in sizes])}
        )
        spans = find_visual_spans(ids, unwrap(self.model).config, encoded)
        images = torch.cat([*(embeds[start:stop] for start, stop in spans), embeds[:0]])
        known = slice(0, len(ids) - 1)
        dtype = self.dtype or embeds.dtype
        return Record(
            ids=ids,
            prompt_length=answered.prompt_length,
            spans=spans,
            features=features[known].to(dtype),
            states=None if self.feature_layers is None else states[known].to(dtype),
            image_embeds=images.to(dtype),
            task=answered.conversation.task,
        )

    def insist_on_same_prompts(self, answered: Sequence[Answered]) -> None:
        """Make the prompts again, and nothing else. Raises as `read` does."""
        for each in answered:
            self._same_prompts([each], [torch.tensor(each.ids)])

    def _same_prompts(self, answered: Sequence[Answered], rows: list[torch.Tensor]) -> Any:
        """The inputs of a right-padded batch of prompts, which are those that were answered."""
        try:
            inputs = model_inputs(self.processor, [each.conversation for each in answered], "right")
        except PictureError as error:
            raise PictureError(
                f"{error}. It was there when the prompt about it was answered: put it back, or distil without it"
            ) from error
        lengths = inputs["attention_mask"].sum(1).tolist()
        for ids, length, each, row in zip(inputs["input_ids"], lengths, answered, rows, strict=True):
            if length != each.prompt_length or not torch.equal(ids[:length], row[:length]):
                raise OtherPromptError(
                    f"prompt {each.conversation.key or each.conversation.text[:60]!r}: this processor makes {length} "
                    f"tokens of it that are not the {each.prompt_length} that were answered. Train with the model, "
                    "processor and pictures of the distillation, or distil again."
                )
        return inputs


def lengthened(inputs: Any, rows: Sequence[torch.Tensor]) -> Any:
    """A right-padded batch of prompts with their answers behind; other inputs with an entry per token get zeros."""
    ids = pad_sequence(list(rows), batch_first=True)
    prompt_shape = inputs["input_ids"].shape
    more = ids.shape[1] - prompt_shape[1]
    for name in [name for name in inputs if inputs[name].shape == prompt_shape]:
        inputs[name] = torch.nn.functional.pad(inputs[name], (0, more))
    inputs["attention_mask"] = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    inputs["input_ids"] = ids
    return inputs


def image_sizes(outputs: Any, pictures: Sequence[int]) -> list[list[int] | None]:
    """Visual tokens of each picture, for each row with `pictures[row]` of them; None where the model does not tell."""
    encoded = getattr(getattr(outputs, "image_outputs", None), "pooler_output", None)
    if encoded is None or len(encoded) != sum(pictures):
        return [None for _ in pictures]
    sizes = [each.shape[0] for each in encoded]
    stops = torch.tensor(list(pictures)).cumsum(0).tolist()
    return [sizes[stop - count : stop] for count, stop in zip(pictures, stops, strict=True)]
