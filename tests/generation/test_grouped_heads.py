"""Verification and drafting copy no keys and values for grouped heads on the CPU; other masks do as before."""

import pytest
import torch
from transformers.integrations import sdpa_attention

from hf_mmspec.modeling import ViSpecDrafter
from hf_mmspec.modeling.grouped_heads import for_grouped_heads, teach_sdpa

from . import tiny


@pytest.fixture
def copies(monkeypatch):
    """Shapes of the keys and values that were repeated, call by call."""
    seen, stock = [], sdpa_attention.repeat_kv

    def counted(states, groups):
        seen.append(states.shape)
        return stock(states, groups)

    monkeypatch.setattr(sdpa_attention, "repeat_kv", counted)
    return seen


@pytest.fixture(scope="module")
def grouped():
    model = tiny.llava()
    assert model.config.text_config.num_attention_heads > model.config.text_config.num_key_value_heads
    return model, ViSpecDrafter.from_target(model)


@pytest.mark.parametrize("rows", [1, 3])
def test_a_request_copies_nothing(grouped, copies, rows):
    model, drafter = grouped
    inputs = {name: value.repeat_interleave(rows, 0) for name, value in tiny.llava_prompt(1).items()}
    plain = model.generate(**inputs, max_new_tokens=12, do_sample=False)
    del copies[:]  # of the plain run's prefill
    prefill = model(**inputs) and len(copies)
    del copies[:]
    tree = dict(draft_depth=3, draft_top_k=2, draft_total_tokens=6, draft_mode="tree")
    ours = model.generate(**inputs, max_new_tokens=12, do_sample=False, assistant_model=drafter, **tree)
    assert ours.tolist() == plain.tolist()
    assert len(copies) == prefill


def test_the_same_numbers_as_with_copies():
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, heads, rows, 16, generator=generator) for heads, rows in ((6, 5), (2, 30), (2, 30)))
    mask = torch.zeros(2, 1, 5, 30).masked_fill_(torch.rand(2, 1, 5, 30, generator=generator) < 0.5, -3e38)
    module = torch.nn.Module()
    module.num_key_value_groups = 3
    expected, _ = sdpa_attention.sdpa_attention_forward(module, q, k, v, mask)
    found, _ = sdpa_attention.sdpa_attention_forward(module, q, k, v, for_grouped_heads(mask))
    assert torch.equal(found, expected)


def test_masks_of_others_are_treated_as_before():
    teach_sdpa()
    teach_sdpa()
    key = torch.zeros(1, 2, 4, 8)
    mask = torch.zeros(1, 1, 2, 4)
    assert not sdpa_attention.use_gqa_in_sdpa(mask, key, key)
    assert sdpa_attention.use_gqa_in_sdpa(None, key, key)
    assert sdpa_attention.use_gqa_in_sdpa(for_grouped_heads(mask), key, key)
    assert not sdpa_attention.use_gqa_in_sdpa(mask[..., :3], key, key)
    assert not hasattr(sdpa_attention.use_gqa_in_sdpa.__wrapped__, "__wrapped__")
