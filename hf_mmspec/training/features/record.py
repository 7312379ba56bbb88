"""One training record: an answer of the target and what a drafter reads of it.

Knows nothing about who made it (`reading.py`), where it is kept (`stored.py`) or how it is learned from.
"""

from dataclasses import dataclass, replace

import torch


@dataclass
class Record:
    """One prompt with the target's own answer: L token ids, of which the last was emitted but never read.

    Args:
        ids: `int64 (L,)`, visual tokens expanded.
        prompt_length: tokens before the answer.
        spans: half-open spans of visual tokens, one for each picture.
        features: `(L - 1, F)` of all positions but the last: the hidden states that the drafter reads.
        states: `(L - 1, H)`, what the target's head reads, where that is not `features` itself.
        image_embeds: `(visual tokens, H)`, the merged embeddings at those spans.
        keys_values: `(L - 1, 2, kv_heads, head_dim)` of one layer of the target, where they are asked for.
        task: what it is counted under.
    """

    ids: torch.Tensor
    prompt_length: int
    spans: list[tuple[int, int]]
    features: torch.Tensor
    image_embeds: torch.Tensor
    states: torch.Tensor | None = None
    keys_values: torch.Tensor | None = None
    task: str = "all"

    @property
    def answer(self) -> list[int]:
        """The target's own tokens."""
        return self.ids[self.prompt_length :].tolist()

    def without_images(self) -> "Record":
        """The text of it: visual positions cut out (stages without pictures train on that)."""
        keep = torch.ones(len(self.ids), dtype=torch.bool)
        for start, stop in self.spans:
            keep[start:stop] = False
        return replace(
            self,
            ids=self.ids[keep],
            features=self.features[keep[:-1]],
            states=None if self.states is None else self.states[keep[:-1]],
            keys_values=None if self.keys_values is None else self.keys_values[keep[:-1]],
            prompt_length=int(keep[: self.prompt_length].sum()),
            spans=[],
            image_embeds=self.image_embeds[:0],
        )

    def to(self, device: torch.device) -> "Record":
        """The same with its states on `device`; ids stay where they are."""
        return replace(
            self,
            features=self.features.to(device),
            states=None if self.states is None else self.states.to(device),
            keys_values=None if self.keys_values is None else self.keys_values.to(device),
            image_embeds=self.image_embeds.to(device),
        )

    def cut_to(self, length: int) -> "Record":
        """The first `length` tokens; pictures must lie within them."""
        if len(self.ids) <= length:
            return self
        return replace(
            self,
            ids=self.ids[:length],
            features=self.features[: length - 1],
            states=None if self.states is None else self.states[: length - 1],
            keys_values=None if self.keys_values is None else self.keys_values[: length - 1],
        )
