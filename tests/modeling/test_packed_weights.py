"""Heads that are packed: found, measured and called through the module, whatever their weights look like."""

import logging

import pytest
import torch

from hf_mmspec.modeling import Eagle3Drafter, MSDDrafter, ViSpecDrafter
from hf_mmspec.modeling.binding import find_head, fingerprint
from hf_mmspec.modeling.packed_weights import head_rows, readable_weight
from tests.generation import packed, tiny

# a skip list in place of bitsandbytes' own packs the head too (transformers #45674)
WITHOUT_HEAD = [name for name in packed.SKIPPED if name != "lm_head"]
HEADS = {
    "nf4": {"form": "nf4"},
    "nf4, stored as bfloat16": {"form": "nf4", "bnb_4bit_quant_storage": torch.bfloat16},
    "nf4, nested scales": {"form": "nf4", "bnb_4bit_use_double_quant": True},
    "int8": {"form": "int8"},
    "torchao int8": {"form": "torchao int8"},
}
FIELDS = {"vocab_size": 128}  # a head of 120 rows does not fit the kernels' blocks


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    folder = tmp_path_factory.mktemp("full")
    return packed.save_full("llava", folder, **FIELDS), folder


@pytest.fixture(params=HEADS)
def target(request, full):
    """A target whose head is packed."""
    return packed.load(full[1], skip=WITHOUT_HEAD, **HEADS[request.param])


def test_sizes_and_fingerprint(full, target):
    drafter = ViSpecDrafter.from_target(full[0])
    borrowed = drafter.bind(target)
    assert readable_weight(find_head(target)) is None
    assert (borrowed.vocab_size, borrowed.head_size, borrowed.head_dtype) == (128, 128, torch.float32)
    prints = fingerprint(target.get_input_embeddings(), find_head(target))
    assert prints == {"embed_tokens": drafter.config.target_fingerprint["embed_tokens"]}


def test_the_drafter_of_the_full_target_binds_without_a_warning(full, target, caplog, monkeypatch):
    """The same embeddings are the same target: how the other weights are packed is its business."""
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    ViSpecDrafter.from_target(full[0]).bind(target)
    assert caplog.records == []
    assert ViSpecDrafter.from_target(target).bind(full[0]).head_size == 128


def test_a_drafter_of_a_packed_target(target):
    """In the dtype of the states, not of the bytes; and its logits are the head's."""
    drafter = MSDDrafter.from_target(target)
    assert (drafter.dtype, drafter.device.type) == (torch.float32, "cpu")
    hidden = torch.randn(3, 64)
    logits = drafter.draft_logits(hidden.bfloat16(), drafter.bind(target))
    assert torch.equal(logits, target.lm_head(hidden.bfloat16().float()))


def test_rows_of_a_packed_head(full, target):
    """A reduced vocabulary starts from what the head answers to unit vectors."""
    ids = torch.tensor([100, 3, 17])
    rows = head_rows(find_head(target), ids, 64, torch.float32)
    exact = full[0].lm_head.weight[ids]
    assert rows.shape == (3, 64) and (rows - exact).norm() < 0.12 * exact.norm()
    hidden = torch.randn(5, 64)
    expected = target.lm_head(hidden)[:, ids]
    assert (hidden @ rows.T - expected).norm() < 0.02 * expected.norm()
    drafter = Eagle3Drafter.from_target(target, ids, feature_layers=[0, 1])
    assert torch.equal(drafter.lm_head.weight, rows[[1, 2, 0]])  # by id


@pytest.mark.parametrize("form", ["nf4", "int8"])
def test_a_bias_stays_as_precise_as_it_was(full, form):
    """bitsandbytes casts the bias of a packed head in place to the dtype of what enters it."""
    target = packed.load(full[1], form, skip=WITHOUT_HEAD)
    bias = target.lm_head.bias = torch.nn.Parameter(torch.full((128,), 1 / 3), requires_grad=False)
    drafter = ViSpecDrafter.from_target(target).to(torch.bfloat16)
    drafter.draft_logits(torch.randn(1, 64).bfloat16(), drafter.bind(target))
    assert target.lm_head.bias.dtype == torch.float32
    assert torch.equal(target.lm_head.bias, torch.full((128,), 1 / 3)) and bias is target.lm_head.bias
    rows = head_rows(find_head(target), torch.arange(4), 64, torch.float32)
    assert rows.abs().mean() < 1.05 * full[0].lm_head.weight[:4].abs().mean()  # the bias is not among them


@pytest.mark.parametrize("form", ["nf4", "int8"])
def test_a_packed_drafter_drafts(tmp_path, form):
    target, inputs = tiny.llava(**packed.SIZES["llava"]), tiny.llava_prompt(1)
    ViSpecDrafter.from_target(target).save_pretrained(tmp_path / "drafter")
    drafter = ViSpecDrafter.from_pretrained(tmp_path / "drafter", quantization_config=packed.config(form, skip=None))
    assert drafter.is_quantized and drafter.layers[0].mlp.up_proj.weight.dtype in (torch.uint8, torch.int8)
    options = {"do_sample": False, "max_new_tokens": 12, "eos_token_id": 1}
    budget = {"draft_depth": 3, "draft_top_k": 2, "draft_total_tokens": 6, "return_dict_in_generate": True}
    drafted = target.generate(**inputs, **options, **budget, assistant_model=drafter)
    assert drafted.speculation.rounds > 0
    assert torch.equal(drafted.sequences, target.generate(**inputs, **options))
    drafter.save_pretrained(tmp_path / "packed")
    assert ViSpecDrafter.from_pretrained(tmp_path / "packed").is_quantized


def test_a_drafter_that_this_processor_cannot_run_in_4_bits_is_refused(tmp_path):
    functional = pytest.importorskip("bitsandbytes.functional")
    if not functional.has_avx512bf16():
        pytest.skip("this processor has other kernels, which take any size")
    ViSpecDrafter.from_target(tiny.llava()).save_pretrained(tmp_path)
    with pytest.raises(OSError, match=r"multiples of 32 \(out\) and 64 \(in\), which .* are not.*8 bits"):
        ViSpecDrafter.from_pretrained(tmp_path, quantization_config=packed.config("nf4", skip=None))
