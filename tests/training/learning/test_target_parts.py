"""What learning borrows: the head's own logits over the draft vocabulary, whatever the head is like."""

import math

import pytest
import torch
from torch import nn

from hf_mmspec.modeling import EagleDrafter, ViSpecDrafter
from hf_mmspec.training.learning.target_parts import TargetParts
from tests.generation import tiny
from tests.training.making import collated, module, record

KNOWN = torch.tensor([100, 3, 41, 7])


def parts_of(target, known=KNOWN, **fields):
    return TargetParts.of(target, ViSpecDrafter.from_target(target, known, **fields))


class PackedHead(nn.Module):
    """As bitsandbytes packs it: the weight is bytes and says nothing; the head can only be called."""

    def __init__(self, head: nn.Linear):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(head.weight.numel() // 2, 1, dtype=torch.uint8), requires_grad=False)
        self._inner = [head]
        self.out_features = head.out_features

    def forward(self, states):
        return self._inner[0](states)


@torch.no_grad()
def test_logits_are_the_heads_own_at_the_draft_ids():
    target, states = tiny.llava(), torch.randn(5, tiny.HIDDEN)
    parts = parts_of(target)
    assert parts.draft_ids.tolist() == [3, 7, 41, 100]
    torch.testing.assert_close(parts.logits(states), target.lm_head(states)[:, [3, 7, 41, 100]])
    assert parts.logits(states.bfloat16()).dtype == torch.float32


@torch.no_grad()
def test_without_an_own_head_all_real_tokens_count():
    target, states = tiny.llava(), torch.randn(5, tiny.HIDDEN)
    parts = TargetParts.of(target, EagleDrafter.from_target(target, real_vocab_size=115))
    torch.testing.assert_close(parts.logits(states), target.lm_head(states)[:, :115])


@torch.no_grad()
def test_the_heads_bias_counts():
    target, states = tiny.llava(), torch.randn(5, tiny.HIDDEN)
    head = nn.Linear(tiny.HIDDEN, tiny.VOCAB)
    target.set_output_embeddings(head)
    torch.testing.assert_close(parts_of(target).logits(states), head(states)[:, [3, 7, 41, 100]])


@torch.no_grad()
@pytest.mark.parametrize("name, factor", [("logit_scale", 0.25), ("logits_scaling", 4.0)])
def test_what_scales_logits_behind_the_head(name, factor):
    target, states = tiny.llava(), torch.randn(5, tiny.HIDDEN)
    plain = target.lm_head(states)[:, [3, 7, 41, 100]]
    setattr(target.config.text_config, name, factor)
    torch.testing.assert_close(parts_of(target).logits(states), plain / 4)


@torch.no_grad()
@pytest.mark.parametrize("packed", [False, True])
def test_gemmas_soft_cap(packed):
    target, states = tiny.llava(), 30 * torch.randn(5, tiny.HIDDEN)
    plain = target.lm_head(states)[:, [3, 7, 41, 100]]
    target.config.text_config.final_logit_softcapping = 5.0
    if packed:
        target.lm_head = PackedHead(target.lm_head)
    logits = parts_of(target).logits(states)
    torch.testing.assert_close(logits, 5 * torch.tanh(plain / 5))
    assert logits.abs().max() <= 5 < plain.abs().max()


@torch.no_grad()
def test_a_packed_head_is_called():
    target, states = tiny.llava(), torch.randn(5, tiny.HIDDEN)
    plain = target.lm_head(states)
    target.lm_head = PackedHead(target.lm_head)
    parts = parts_of(target)
    assert parts.head_rows is None
    torch.testing.assert_close(parts.logits(states), plain[:, [3, 7, 41, 100]])


def test_what_the_drafter_can_say():
    parts = parts_of(tiny.llava())
    assert parts.knows(torch.tensor([[3, 4], [100, 119]])).tolist() == [[True, False], [True, False]]


@pytest.mark.parametrize("name", ["vispec", "eagle3"])
def test_padding_of_the_vocabulary_is_out_of_the_loss(name):
    """Ids that the target has rows for but no tokens: the drafter masks them by -inf, and so must the target be."""
    target = tiny.llava(num_hidden_layers=3)
    learning = module(name, target, torch.arange(tiny.VOCAB), loss={"soft_cross_entropy": 1.0, "reverse_kl": 0.5})
    learning.drafter.config.real_vocab_size = 112
    learning.parts = TargetParts.of(target, learning.drafter)
    batch = collated(learning, record(taps=name == "eagle3"))
    loss = learning(**batch)["loss"]
    loss.backward()
    assert math.isfinite(loss.item())
    probabilities = learning.parts.logits(torch.randn(2, tiny.HIDDEN)).softmax(-1)
    assert probabilities[:, 112:].sum() == 0
    assert all(torch.isfinite(p.grad).all() for p in learning.drafter.parameters() if p.grad is not None)
