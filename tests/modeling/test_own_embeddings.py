"""A drafter that is not as wide as its target: how it starts, what it reads, and what it refuses."""

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn

from hf_mmspec.modeling import FAMILIES, DrafterMismatchError, Eagle3Config, Eagle3Drafter
from hf_mmspec.modeling.own_embeddings import OwnEmbeddings, at_width
from tests.generation import tiny as targets
from tests.modeling import tiny
from tests.modeling.families import build, prompt_for
from tests.modeling.test_every_drafter import NEXT, inputs_of

NARROW = "eagle3, narrower than its target"
TAPS = {"feature_layers": [0, 1]}


@pytest.fixture(scope="module")
def llava():
    return targets.llava()


@pytest.mark.parametrize(
    "width, heads, groups, mlp", [(16, 2, 2, 24), (8, 1, 1, 16), (4, 1, 1, 8), (24, 3, 1, 32), (64, 8, 2, 96)]
)
def test_from_target_makes_a_layer_in_proportion(llava, width, heads, groups, mlp):
    """The target: width 32, 4 heads of 8 in 2 groups, an MLP of 48."""
    drafter = Eagle3Drafter.from_target(llava, hidden_size=width, **TAPS)
    config = drafter.config
    assert (config.target_hidden_size, config.num_attention_heads, config.num_key_value_heads) == (32, heads, groups)
    assert (config.head_dim, config.intermediate_size) == (8, mlp)
    assert drafter.fc.weight.shape == (width, 2 * targets.HIDDEN)
    assert drafter.embed_tokens.weight.shape == drafter.lm_head.weight.shape == (targets.VOCAB, width)
    assert drafter.embed_tokens.weight.requires_grad


def test_from_target_keeps_what_is_asked_for(llava):
    fields = {"hidden_size": 16, "num_attention_heads": 4, "num_key_value_heads": 1, "intermediate_size": 20}
    config = Eagle3Drafter.from_target(llava, **fields, **TAPS).config
    assert {name: getattr(config, name) for name in fields} == fields
    assert config.head_dim == 4
    config = Eagle3Drafter.from_target(llava, hidden_size=16, head_dim=4, **TAPS).config
    assert (config.head_dim, config.num_attention_heads) == (4, 4)


def test_the_target_s_width_changes_nothing(llava):
    drafter = Eagle3Drafter.from_target(llava, hidden_size=targets.HIDDEN, **TAPS)
    assert drafter.embed_tokens is None and drafter.config.target_hidden_size is None
    assert drafter.state_dict().keys() == Eagle3Drafter.from_target(llava, **TAPS).state_dict().keys()


@pytest.mark.parametrize("width", [32, 40])
def test_a_wider_table_keeps_all_inner_products(llava, width):
    table = llava.get_input_embeddings().weight
    rows = at_width(llava.get_input_embeddings(), torch.arange(targets.VOCAB), width)
    assert torch.equal(rows, table) == (width == targets.HIDDEN)
    torch.testing.assert_close(rows @ rows.T, table.detach() @ table.detach().T, atol=1e-4, rtol=1e-4)


def test_a_narrower_table_keeps_as_much_as_any(monkeypatch):
    """No table of width 8 has closer inner products than the truncated singular value decomposition."""
    monkeypatch.setattr("hf_mmspec.modeling.own_embeddings._ROWS_AT_ONCE", 7)
    table = torch.randn(50, 32, generator=torch.Generator().manual_seed(0))
    rows = at_width(lambda ids: table[ids], torch.arange(50), 8)
    u, s, _ = torch.linalg.svd(table, full_matrices=False)
    best = u[:, :8] * s[:8]
    torch.testing.assert_close(rows @ rows.T, best @ best.T, atol=1e-3, rtol=1e-3)


def test_embeddings_and_reduced_head_start_from_the_target_s():
    target, ids = targets.llava().to(torch.bfloat16), torch.arange(3, 60, 2)
    drafter = Eagle3Drafter.from_target(target, ids, hidden_size=40, **TAPS)
    assert drafter.dtype == torch.bfloat16
    for ours, theirs in (
        (drafter.embed_tokens.weight, target.get_input_embeddings().weight),
        (drafter.lm_head.weight, target.lm_head.weight[ids]),
    ):
        products, wanted = (table.detach().float() @ table.detach().float().T for table in (ours, theirs))
        torch.testing.assert_close(products, wanted, atol=0.03 * float(wanted.max()), rtol=0)


def test_rows_that_the_target_has_not_stay_as_they_are():
    table = OwnEmbeddings(10, 4)
    before = table.weight.detach().clone()
    table.start_from(nn.Embedding(6, 8))
    changed = (table.weight != before).any(1)
    assert changed.tolist() == [True] * 6 + [False] * 4


def test_ids_beyond_the_table_read_its_last_row():
    table = OwnEmbeddings(10, 4)
    assert torch.equal(table(torch.tensor([[-100, 3, 10, 32000]])), table.weight[[0, 3, 9, 9]][None])


@torch.no_grad()
def test_images_are_embedded_as_their_placeholder():
    """What an image looks like arrives through the features alone."""
    drafter, borrowed = build(NARROW), tiny.borrowed()
    prompt = prompt_for(drafter, [(4, 14)])
    expected = drafter.prefill(prompt, NEXT, borrowed).last_hidden
    prompt.inputs_embeds = torch.randn_like(prompt.inputs_embeds)
    assert torch.equal(drafter.prefill(prompt, NEXT, borrowed).last_hidden, expected)
    prompt.input_ids = prompt.input_ids.masked_fill(prompt.visual_mask, 7)
    assert not torch.equal(drafter.prefill(prompt, NEXT, borrowed).last_hidden, expected)


def test_the_training_path_takes_ids_or_its_own_width():
    drafter = build(NARROW)
    prompt = prompt_for(drafter)
    by_ids = drafter(prompt.features, None, input_ids=prompt.input_ids).hidden_states[0]
    own = drafter.embed_inputs(None, prompt.input_ids)
    assert own.shape == (1, 30, 16)
    assert torch.equal(by_ids, drafter(prompt.features, own).hidden_states[0])
    with pytest.raises(ValueError, match=r"hidden size 16\) needs input_ids"):
        drafter(*inputs_of(prompt))
    with pytest.raises(ValueError, match=r"hidden size 32\) needs inputs_embeds"):
        build("eagle3")(prompt.features, None, input_ids=prompt.input_ids)


@pytest.mark.parametrize("is_trained", [True, False])
def test_a_step_of_training_moves_the_embeddings_unless_frozen(is_trained):
    drafter = build(NARROW)
    drafter.embed_tokens.requires_grad_(is_trained)
    prompt = prompt_for(drafter)
    before = drafter.embed_tokens.weight.detach().clone()
    optimizer = torch.optim.SGD(drafter.parameters(), lr=0.1)
    hidden = drafter(prompt.features, None, input_ids=prompt.input_ids, steps=2).hidden_states[1]
    drafter.draft_logits(hidden).square().mean().backward()
    optimizer.step()
    assert torch.equal(drafter.embed_tokens.weight, before) != is_trained


@pytest.mark.parametrize(
    "fields, complaint",
    [
        ({"draft_vocab_size": None}, "16 for a target of 32 cannot borrow its head: set draft_vocab_size"),
        ({"visual": "raw"}, 'visual="raw" does: choose "none" or "latents"'),
        ({"visual": "adaptor"}, 'visual="adaptor" does: choose "none" or "latents"'),
        ({"target_hidden_size": 0}, "must be at least 1"),
    ],
)
def test_configs_that_cannot_be_are_refused(fields, complaint):
    sizes = {**tiny.of_width(16), "vocab_size": tiny.VOCAB, "draft_vocab_size": 20, "num_attention_heads": 2}
    Eagle3Config(**sizes)
    with pytest.raises(StrictDataclassError, match=complaint):
        Eagle3Config(**{**sizes, **fields})


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "eagle3"])
def test_other_families_are_as_wide_as_their_target(llava, family):
    with pytest.raises(ValueError, match=r"for hidden size 16 does not fit a target of 32: leave hidden_size out"):
        FAMILIES[family][1].from_target(llava, hidden_size=16)


def test_binding_compares_the_target_s_width(llava):
    drafter = Eagle3Drafter.from_target(llava, hidden_size=16, **TAPS)
    borrowed = drafter.bind(llava)
    assert borrowed.embed_tokens is llava.get_input_embeddings() and borrowed.lm_head is llava.lm_head
    with pytest.raises(DrafterMismatchError, match="is for hidden size 32 but the target has 16"):
        drafter.bind(targets.llava(hidden_size=16))
    for fields, complaint in (
        ({"vocab_size": 150}, "vocabulary has 150 tokens"),
        ({"target_model_type": "qwen2_5_vl"}, 'targets of type "qwen2_5_vl"'),
    ):
        other = Eagle3Drafter(Eagle3Config(**{**drafter.config.to_dict(), **fields}))
        with pytest.raises(DrafterMismatchError, match=complaint):
            other.bind(llava)


def test_a_prompt_of_embeddings_is_refused_before_the_target_runs(llava, monkeypatch):
    drafter = Eagle3Drafter.from_target(llava, hidden_size=16, **TAPS)
    embeds = llava.get_input_embeddings()(torch.tensor([[1, 5, 9, 14]]))
    monkeypatch.setattr(llava.get_decoder(), "forward", lambda *args, **kwargs: pytest.fail("the target ran"))
    with pytest.raises(ValueError, match=r"embeddings of its own.*give the prompt as input_ids"):
        llava.generate(inputs_embeds=embeds, assistant_model=drafter, max_new_tokens=4, do_sample=False)
