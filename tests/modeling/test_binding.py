"""A drafter refuses targets that it was not made for, and finds the head of those it was, through wrappers."""

import logging

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, GPT2Config, LlamaModel, LlavaModel, OPTConfig

from hf_mmspec.modeling import DrafterMismatchError, ViSpecDrafter
from hf_mmspec.modeling import binding as binding_module
from hf_mmspec.modeling.binding import find_head, fingerprint
from tests.generation import tiny as targets
from tests.modeling import tiny


@pytest.fixture(scope="module")
def llava():
    return targets.llava()


@pytest.fixture(scope="module")
def drafter(llava):
    return ViSpecDrafter.from_target(llava)


@pytest.mark.parametrize(
    "config",
    [
        GPT2Config(n_embd=32, n_head=4, n_layer=1, vocab_size=60),
        OPTConfig(vocab_size=60, hidden_size=32, num_hidden_layers=1, ffn_dim=48, num_attention_heads=4),
    ],
    ids=lambda config: config.model_type,
)
def test_sizes_of_decoders_that_name_them_otherwise(config):
    """Neither has key-value heads of its own, and GPT-2's MLP is four times as wide unless it says something else."""
    drafter = ViSpecDrafter.from_target(AutoModelForCausalLM.from_config(config))
    assert drafter.config.num_key_value_heads == drafter.config.num_attention_heads == 4
    assert drafter.config.intermediate_size == 128


def altered(drafter, **fields):
    """The same drafter with other config fields (its weights do not matter for the checks)."""
    return ViSpecDrafter(type(drafter.config)(**{**drafter.config.to_dict(), **fields}))


@pytest.mark.parametrize("family", ["llava", "qwen"])
def test_from_target_fits(family):
    target = targets.FAMILIES[family]()
    drafter = ViSpecDrafter.from_target(target)
    borrowed = drafter.bind(target)
    assert borrowed.embed_tokens is target.get_input_embeddings()
    assert borrowed.lm_head is target.get_output_embeddings()
    assert (borrowed.vocab_size, borrowed.head_size) == (targets.VOCAB, targets.VOCAB)
    assert drafter.config.target_model_type == target.config.model_type
    assert "mrope_section" not in drafter.config.rope_parameters
    assert (drafter.dtype, drafter.training) == (torch.float32, False)
    assert ViSpecDrafter.from_target(targets.FAMILIES[family]().to(torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.parametrize(
    "fields, complaint",
    [
        ({"hidden_size": 64}, "hidden size 64 but the target has 32"),
        ({"vocab_size": 150}, "vocabulary has 150 tokens but the target's 120"),
        ({"target_model_type": "qwen2_5_vl"}, '"qwen2_5_vl" but this one is "llava"'),
        ({"vocab_size": 150, "real_vocab_size": 130}, "130 tokens but the target's 120"),
    ],
)
def test_mismatches_are_errors_with_cause_and_fix(llava, drafter, fields, complaint):
    with pytest.raises(DrafterMismatchError, match=complaint) as caught:
        altered(drafter, **fields).bind(llava)
    assert isinstance(caught.value, ValueError)
    assert any(fix in str(caught.value) for fix in ("mmspec train", "real_vocab_size"))


def test_other_padding_is_fine(llava, drafter):
    borrowed = altered(drafter, vocab_size=128, real_vocab_size=118).bind(llava)
    assert (borrowed.vocab_size, borrowed.head_size) == (118, 120)
    logits = drafter.draft_logits(torch.randn(1, targets.HIDDEN), borrowed)
    assert logits.shape == (1, 118)  # padded ids can never be drafted


@pytest.mark.parametrize("headless", [lambda t: t.model, lambda t: t.model.language_model, lambda t: nn.Linear(2, 2)])
def test_no_head_is_an_error(llava, drafter, headless):
    model = headless(llava)
    assert isinstance(model, LlavaModel | LlamaModel | nn.Linear)
    with pytest.raises(DrafterMismatchError, match=f"no language-model head.*{type(model).__name__}"):
        drafter.bind(model)


class Wrapped(nn.Module):
    """Stands for `torch.compile`'s OptimizedModule."""

    def __init__(self, model):
        super().__init__()
        self._orig_mod = model


class Adapted(nn.Module):
    """Stands for PEFT's PeftModel."""

    def __init__(self, model):
        super().__init__()
        self.base, self.peft_config = model, {"default": None}

    def get_base_model(self):
        return self.base


class OldLayout(nn.Module):
    """A wrapper of before transformers 4.52: the head inside `language_model`, no accessor."""

    def __init__(self, model):
        super().__init__()
        self.language_model = nn.Module()
        self.language_model.lm_head = model.lm_head


@pytest.mark.parametrize("wrap", [Wrapped, Adapted, nn.DataParallel, lambda m: Wrapped(Adapted(m)), OldLayout])
def test_head_is_found_through_wrappers(llava, wrap):
    assert find_head(wrap(llava)) is llava.lm_head


@pytest.mark.parametrize("wrap", [Wrapped, Adapted, nn.DataParallel])
def test_wrapped_targets_bind(llava, drafter, wrap):
    assert drafter.bind(wrap(llava)).lm_head is llava.lm_head


@pytest.fixture
def warnings_of(caplog, monkeypatch):
    """What `bind` warns about, each call on its own (`warning_once` remembers)."""

    def collect(drafter, target):
        caplog.clear()
        binding_module.logger.warning_once.cache_clear()
        monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
        drafter.bind(target)
        return [record.getMessage() for record in caplog.records]

    return collect


def test_fingerprint_survives_dtypes_and_warns_about_other_weights(drafter, warnings_of):
    same = targets.llava()
    assert warnings_of(drafter, same) == []
    assert warnings_of(drafter, targets.llava().to(torch.bfloat16)) == []
    rotated = targets.llava()
    rotation = torch.linalg.qr(torch.randn(32, 32)).Q
    rotated.get_input_embeddings().weight.data @= rotation
    assert ["embed_tokens differs" in message for message in warnings_of(drafter, rotated)] == [True]
    fresh_head = targets.llava()
    nn.init.normal_(fresh_head.lm_head.weight)
    assert ["lm_head differs" in message for message in warnings_of(drafter, fresh_head)] == [True]


def test_fingerprint_leaves_packed_heads_out(llava):
    packed = nn.Linear(4, 4, bias=False)
    packed.weight = nn.Parameter(torch.zeros(8, 1, dtype=torch.uint8), requires_grad=False)
    assert list(fingerprint(llava.get_input_embeddings(), packed)) == ["embed_tokens"]


def test_target_in_another_dtype(llava, drafter):
    """Features and embeddings are cast to the drafter's dtype, the borrowed head gets the target's."""
    target = targets.llava().to(torch.bfloat16)
    borrowed = drafter.bind(target)
    prompt = tiny.prompt([(4, 14)])
    prompt.features, prompt.inputs_embeds = prompt.features.bfloat16(), prompt.inputs_embeds.bfloat16()
    state = drafter.prefill(prompt, torch.tensor([[5]]), borrowed)
    assert state.last_hidden.dtype == torch.float32
    assert drafter.draft_logits(state.last_hidden, borrowed).shape == (1, targets.VOCAB)
