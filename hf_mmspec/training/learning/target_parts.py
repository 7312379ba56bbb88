"""What learning needs of the frozen target: embeddings in, and its logits over what the drafter can say.

Borrows through the drafter's own checks; runs no layer of the target.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from hf_mmspec.modeling import BorrowedParts, Drafter
from hf_mmspec.modeling.binding import unwrap
from hf_mmspec.modeling.packed_weights import head_rows, readable_weight


@dataclass(frozen=True)
class TargetParts:
    """Parts of the target, with no gradient of their own.

    Args:
        borrowed: its embeddings and head, for the drafter; a packed head is a plain layer here: gradients pass.
        head: its own head, packed or not, for what it would say.
        draft_ids: `int64 (V,)` target ids of the draft vocabulary in its own order.
        soft_cap, scale: what the target does behind its head: Gemma's `final_logit_softcapping` (None for none), and a
            factor (Cohere's `logit_scale`, Granite's `logits_scaling`).
        known: `bool (ids of the head,)`, whether the drafter can say an id.
        head_rows, head_bias: the head's rows of `draft_ids`, None where the whole head is called: the drafter borrows
            it, or its weights are packed (quantised).
    """

    borrowed: BorrowedParts
    head: BorrowedParts
    draft_ids: torch.Tensor
    known: torch.Tensor
    soft_cap: float | None = None
    scale: float = 1.0
    head_rows: torch.Tensor | None = None
    head_bias: torch.Tensor | None = None

    @classmethod
    @torch.no_grad()
    def of(cls, target: Any, drafter: Drafter) -> "TargetParts":
        """Borrow them.

        Raises:
            DrafterMismatchError: the drafter was made for another target.
        """
        borrowed = drafter.bind(target)
        size = drafter.config.draft_vocab_size or borrowed.vocab_size
        ids = drafter.to_target_ids(torch.arange(size, device=drafter.device))
        text = unwrap(target).config.get_text_config(decoder=True)
        soft_cap = getattr(text, "final_logit_softcapping", None)
        scale = (getattr(text, "logit_scale", None) or 1.0) / (getattr(text, "logits_scaling", None) or 1.0)
        known = torch.zeros(max(borrowed.head_size, drafter.config.vocab_size), dtype=torch.bool)
        known[ids.cpu()] = True
        weight = readable_weight(borrowed.lm_head)
        bias = getattr(borrowed.lm_head, "bias", None)
        if weight is None or drafter.lm_head is None:
            plain = _with_gradients(borrowed, text.hidden_size) if drafter.lm_head is None else borrowed
            return cls(plain, borrowed, ids, known, soft_cap, scale)
        rows = weight[ids.to(weight.device)].to(drafter.device)
        own_bias = None if bias is None else bias[ids.to(bias.device)].to(drafter.device)
        return cls(borrowed, borrowed, ids, known, soft_cap, scale, rows, own_bias)

    @torch.no_grad()
    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """The target's logits `(n, V)` over the draft vocabulary, float32, from states `(n, H)`; -inf at ids that
        only pad the vocabulary, as the drafter's own are."""
        if self.head_rows is None:
            logits = self.head.lm_head(self.head.head_input(states))[..., self.draft_ids]
        else:
            logits = nn.functional.linear(states.to(self.head_rows.dtype), self.head_rows, self.head_bias)
        logits = logits.float() * self.scale
        if self.soft_cap is not None:
            logits = self.soft_cap * torch.tanh(logits / self.soft_cap)
        return logits.masked_fill_(self.draft_ids.to(logits.device) >= self.borrowed.vocab_size, -math.inf)

    def knows(self, token_ids: torch.Tensor) -> torch.Tensor:
        """`bool`, as `token_ids`: whether the drafter can say the token at all."""
        return self.known.to(token_ids.device)[token_ids]


def _with_gradients(borrowed: BorrowedParts, hidden_size: int) -> BorrowedParts:
    """The same with a head that gradients pass through: bitsandbytes' packed layers have no backward pass on
    processors, so that a plain layer with the rows that they stand for takes their place."""
    head: Any = borrowed.lm_head
    weight = getattr(head, "weight", None)
    if readable_weight(head) is not None or weight is None or weight.is_meta:
        return borrowed
    dtype = borrowed.head_dtype or torch.float32
    rows = head_rows(head, torch.arange(borrowed.head_size), hidden_size, dtype)
    bias = getattr(head, "bias", None)
    bias = None if bias is None else bias.detach().to(rows)
    return replace(borrowed, lm_head=lambda states: nn.functional.linear(states, rows, bias))
