"""What a conversation keeps between turns: the target's rows, what the drafter has read, and which tokens they are.

Pass it to `generate` as `cache=`, with or without a drafter. Knows ids and pictures' digests, but neither messages,
templates nor pixels.
"""

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

import torch
from transformers import DynamicCache, PreTrainedConfig, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from hf_mmspec.modeling import BorrowedParts, Drafter, DraftState, TargetPrompt

from .cache import TreeCache

_FIRST_CAPACITY = 256
# Model types whose masks let tokens of one picture see one another, and are causal otherwise.
_CAUSAL_OUTSIDE_PICTURES = ("gemma3",)


class PictureBlock(NamedTuple):
    """Positions `[start, stop)` that are cached together or not at all, and the digests of the pictures there."""

    start: int
    stop: int
    digests: tuple[str, ...]


class ConversationCache(TreeCache):
    """The caches of target and drafter over the turns of one conversation.

    Holds all positions of every layer, also of those with a sliding window, which is the attention mask's business;
    so it can be cut anywhere. What `generate` appends is only counted in by `remember`: after an exception, `cut` back
    to where the request began.

    Attributes:
        ids: the tokens of the conversation so far. All but the last of them have rows.
        blocks: where pictures stand among them.

    Args:
        config: of a target that `fits`.
    """

    def __init__(self, config: PreTrainedConfig):
        super().__init__(len(_stock_layers(config)), _FIRST_CAPACITY)
        self.ids: list[int] = []
        self.blocks: list[PictureBlock] = []
        self._drafter: Drafter | None = None  # the one that `_draft_state` belongs to
        self._draft_state: DraftState | None = None

    @staticmethod
    def fits(model: PreTrainedModel) -> bool:
        """Whether rows of the target can be dropped again, and do not depend on what comes after them.

        Not so where layers keep a running state, and where a prompt or all its pictures see one another (PaliGemma,
        Molmo 2). Families with masks of their own are taken to be of that kind unless they are known.
        """
        has_own_masks = hasattr(model, "create_masks_for_generate")
        if has_own_masks and model.config.model_type not in _CAUSAL_OUTSIDE_PICTURES:
            return False
        layers = _stock_layers(model.config)
        return all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers)

    def reuse(self, ids: Sequence[int], digests: Sequence[str]) -> int:
        """Cut back to what can stay for a prompt, and return how many of its pictures are in there.

        That is the longest common prefix but for its last token (whose successor may be another one, and the drafter
        reads pairs), or less: never a part of a picture, and never a picture behind other pixels than before.

        Args:
            ids: the whole prompt, expanded.
            digests: of its pictures, in order; equal where the pixels are.
        """
        length = max(min(_common(self.ids, ids) - 1, self.get_seq_length()), 0)
        known = 0
        for block in self.blocks:
            if block.stop > length or tuple(digests[known : known + len(block.digests)]) != block.digests:
                # one text token before it, so that no drafter has a half compressed picture
                length = min(length, max(block.start - 1, 0))
                break
            known += len(block.digests)
        self.cut(length)
        return known

    def cut(self, length: int) -> None:
        """Keep the first `length` positions, which no call of `generate` since the last `reuse` has touched."""
        self.truncate(length)
        del self.ids[length:]
        self.blocks = [block for block in self.blocks if block.stop <= length]
        if self._draft_state is not None:
            self._draft_state.crop(length)
        if length == 0:
            self._draft_state = None

    def remember(self, ids: Sequence[int], digests: Sequence[str], visual_ids: Sequence[int]) -> None:
        """Count in what a request has appended.

        Args:
            ids: prompt and answer.
            digests: of the prompt's pictures; those that `reuse` did not find stand behind the cut.
            visual_ids: the target's placeholder tokens.
        """
        first = len(self.ids)
        new = tuple(digests[sum(len(block.digests) for block in self.blocks) :])
        self.ids = list(ids)
        if new:
            self.blocks += _blocks(self.ids, first, new, visual_ids)

    def read(
        self, drafter: Drafter, prompt: TargetPrompt, next_token: torch.Tensor, borrowed: BorrowedParts
    ) -> DraftState:
        """Let `drafter` go on where it has read to; another drafter than before begins with `prompt`."""
        goes_on = self._drafter is drafter
        if self._draft_state is None or not goes_on:
            self._draft_state = drafter.prefill(prompt, next_token, borrowed)
        else:
            self._draft_state.borrowed = borrowed
            self._draft_state = drafter.resume(self._draft_state, prompt, next_token)
        self._drafter = drafter
        return self._draft_state


def _stock_layers(config: PreTrainedConfig) -> list:
    return DynamicCache(config=config.get_text_config(decoder=True)).layers


def _common(ours: Sequence[int], theirs: Sequence[int]) -> int:
    """Length of the longest common prefix."""
    pairs = enumerate(zip(ours, theirs, strict=False))
    return next((index for index, (a, b) in pairs if a != b), min(len(ours), len(theirs)))


def _blocks(ids: Sequence[int], first: int, digests: tuple[str, ...], visual_ids: Sequence[int]) -> list[PictureBlock]:
    """Where the pictures stand behind `first`: one run of placeholders each, or all in one block where runs and
    pictures do not correspond (adjacent pictures, pictures in several parts)."""
    runs, position = [], first
    for is_visual, group in groupby(ids[first:], key=lambda token: token in visual_ids):
        length = sum(1 for _ in group)
        runs += [(position, position + length)] if is_visual else []
        position += length
    if len(runs) == len(digests):
        return [PictureBlock(*run, (digest,)) for run, digest in zip(runs, digests, strict=True)]
    start, stop = (runs[0][0], runs[-1][1]) if runs else (first, len(ids))
    return [PictureBlock(start, stop, digests)]
