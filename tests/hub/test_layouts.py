"""Every published layout becomes the drafter that it was made from, bit by bit; one wrong name is an error."""

import pytest
import torch
from safetensors.torch import load_file

from hf_mmspec import AutoDrafter
from hf_mmspec.hub import ConversionError, convert
from hf_mmspec.modeling import BorrowedParts, DraftBudget, TargetPrompt
from tests.hub.published import HIDDEN, IDS, LAYOUTS, VOCAB

layouts = pytest.mark.parametrize("layout", LAYOUTS)


def drafted(drafter):
    """Logits of the training path and a drafted tree, with and without an image."""
    torch.manual_seed(7)
    width, layers = drafter.config.target_width, getattr(drafter.config, "num_features", 1)
    embeds, features = torch.randn(1, 20, width), torch.randn(1, 20, layers * width)
    ids = torch.randint(VOCAB, (1, 20))
    borrowed = BorrowedParts(torch.nn.Embedding(VOCAB, width), torch.nn.Linear(width, VOCAB, False), VOCAB, VOCAB)
    drafter = drafter.float()
    with torch.no_grad():
        hidden = drafter(features, embeds, [[(3, 15)]], input_ids=ids).hidden_states[0]
        logits = drafter.draft_logits(hidden, borrowed)
    state = drafter.prefill(TargetPrompt(ids, embeds, features, [(3, 15)]), torch.tensor([[9]]), borrowed)
    tree = drafter.propose(state, DraftBudget(3, 3, 10))
    return logits, tree.tokens, tree.scores


@layouts
def test_round_trip(layout, write, tmp_path):
    source, made = write(layout), LAYOUTS[layout]()
    report = convert(source, tmp_path / "ours")
    loaded, origin = AutoDrafter.from_pretrained(tmp_path / "ours"), made.drafter()
    assert (report.family, loaded.dtype, loaded.training) == (made.family, made.dtype, False)
    assert loaded.state_dict().keys() == origin.state_dict().keys()
    for name, tensor in origin.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    for ours, theirs in zip(drafted(loaded), drafted(origin), strict=True):
        assert torch.equal(ours, theirs)


@layouts
def test_dtypes_are_kept_tensor_by_tensor(layout, write, tmp_path):
    def mix(config, tensors):
        name = next(
            name for name in tensors if name.endswith("post_attention_layernorm.weight") or "post_attn" in name
        )
        tensors[name] = tensors[name].float()

    convert(write(layout, mix), tmp_path / "ours")
    dtypes = {tensor.dtype for tensor in load_file(tmp_path / "ours" / "model.safetensors").values()}
    assert dtypes - {torch.int64} == {torch.float32, LAYOUTS[layout]().dtype}
    assert AutoDrafter.from_pretrained(tmp_path / "ours").dtype == LAYOUTS[layout]().dtype


def own_weights(layout):
    """Names that the layout cannot do without."""
    made = LAYOUTS[layout]()
    return sorted(made.tensors().keys() - made.extras.keys())


every_weight = pytest.mark.parametrize(
    "layout, name", [(layout, name) for layout in LAYOUTS for name in own_weights(layout)]
)


@every_weight
def test_a_renamed_tensor_is_named(layout, name, write, tmp_path):
    source = write(layout, lambda config, tensors: tensors.update({f"{name}_x": tensors.pop(name)}))
    with pytest.raises(ConversionError) as caught:
        convert(source, tmp_path / "ours")
    assert name in str(caught.value) and not (tmp_path / "ours").exists()
    if name not in ("d2t", "embed_tokens.weight"):  # refused before the names are compared
        assert f"{name}_x" in str(caught.value)


@every_weight
def test_a_dropped_tensor_is_named(layout, name, write, tmp_path):
    if name == "fc.bias" and layout.startswith("eagle3"):
        pytest.skip("a bias that no EAGLE-3 has")
    source = write(layout, lambda config, tensors: tensors.pop(name))
    with pytest.raises(ConversionError, match="missing") as caught:
        convert(source, tmp_path / "ours")
    assert name in str(caught.value)
    assert list(tmp_path.iterdir()) == [tmp_path / "theirs"]


@layouts
@pytest.mark.parametrize("extra", ["extra.weight", "layers.0.self_attn.q_norm.weight", "layers.1.mlp.up_proj.weight"])
def test_an_extra_tensor_is_named(layout, extra, write, tmp_path):
    source = write(layout, lambda config, tensors: tensors.update({extra: torch.ones(3)}))
    with pytest.raises(ConversionError, match=f"unexpected: {extra}"):
        convert(source, tmp_path / "ours")


@layouts
def test_a_shape_that_the_config_does_not_mean(layout, write, tmp_path):
    def widen(config, tensors):
        name = next(name for name in tensors if name.endswith("o_proj.weight"))
        tensors[name] = torch.ones(HIDDEN + 1, HIDDEN, dtype=tensors[name].dtype)

    with pytest.raises(ConversionError, match=r"o_proj\.weight is \(33, 32\) where config\.json asks for \((32|64),"):
        convert(write(layout, widen), tmp_path / "ours")


def test_a_drafter_of_another_width_keeps_its_embeddings(write, tmp_path):
    """Width 64 for a target of 48: they are copied like any weight, and are no print of the target's."""
    source = write("eagle3_narrow")
    report = convert(source, tmp_path / "ours")
    assert report.renamed["embed_tokens.weight"] == "embed_tokens.weight" and report.left_out.keys() == {"t2d"}
    drafter = AutoDrafter.from_pretrained(tmp_path / "ours")
    assert torch.equal(drafter.embed_tokens.weight, load_file(source / "model.safetensors")["embed_tokens.weight"])
    assert drafter.fc.weight.shape == (64, 144)
    assert (drafter.config.hidden_size, drafter.config.target_hidden_size) == (64, 48)
    assert drafter.config.target_fingerprint is None
    assert torch.equal(drafter.to_target_ids(torch.arange(len(IDS))), IDS)


def test_a_drafter_of_another_width_needs_embeddings(write, tmp_path):
    source = write("eagle3_narrow", lambda config, tensors: tensors.pop("embed_tokens.weight"))
    with pytest.raises(ConversionError, match=r"64 for a target of 48 needs embeddings of its own.*is missing"):
        convert(source, tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


@pytest.mark.parametrize("tensor", ["embed_tokens.weight", "fc.weight"])
def test_a_drafter_of_another_width_with_weights_of_the_target_s(tensor, write, tmp_path):
    """Embeddings of the target's width, a projection from its own."""
    wrong = {"embed_tokens.weight": (VOCAB, 48), "fc.weight": (64, 192)}[tensor]
    source = write("eagle3_narrow", lambda config, tensors: tensors.update({tensor: torch.ones(wrong).half()}))
    with pytest.raises(ConversionError, match=rf"{tensor} is \({wrong[0]}, {wrong[1]}\) where config.json asks"):
        convert(source, tmp_path / "ours")


def test_the_target_s_width_may_be_said_where_it_is_the_same(write, tmp_path):
    source = write("eagle3_specforge", lambda config, tensors: config.update(target_hidden_size=HIDDEN))
    assert "embed_tokens.weight" in convert(source, tmp_path / "ours").left_out
    assert AutoDrafter.from_pretrained(tmp_path / "ours").embed_tokens is None


def test_trained_embeddings_are_no_variant_where_they_are_its_own(write, tmp_path):
    """speculators' spelling: the target's width beside the nested config, and whether embeddings were trained."""

    def widen(config, tensors):
        config |= {"target_hidden_size": 48, "embed_requires_grad": True}
        tensors["fc.weight"] = torch.ones(HIDDEN, 3 * 48).to(tensors["fc.weight"])

    convert(write("eagle3_speculators", widen), tmp_path / "ours")
    assert AutoDrafter.from_pretrained(tmp_path / "ours").embed_tokens.weight.shape == (VOCAB, HIDDEN)


def test_same_weight_twice(write, tmp_path):
    def twice(config, tensors):
        tensors["layers.0.hidden_norm.weight"] = tensors["midlayer.hidden_norm.weight"].clone()

    with pytest.raises(ConversionError, match="are the same weight"):
        convert(write("eagle3", twice), tmp_path / "ours")


def test_midlayer_and_layers_0_are_the_same(write, tmp_path):
    def rename(config, tensors):
        for name in [name for name in tensors if name.startswith("midlayer.")]:
            tensors[name.replace("midlayer.", "layers.0.")] = tensors.pop(name)

    convert(write("eagle3", rename), tmp_path / "ours")
    origin = LAYOUTS["eagle3"]().drafter().state_dict()
    loaded = AutoDrafter.from_pretrained(tmp_path / "ours").state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in origin.items())


def test_quantized_weights_are_refused(write, tmp_path):
    def quantize(config, tensors):
        tensors["midlayer.self_attn.o_proj.weight"] = tensors["midlayer.self_attn.o_proj.weight"].to(
            torch.float8_e4m3fn
        )

    with pytest.raises(ConversionError, match=r"o_proj\.weight is no floating-point tensor"):
        convert(write("eagle3", quantize), tmp_path / "ours")


@pytest.mark.parametrize("field", ["hidden_size", "vocab_size", "num_attention_heads"])
def test_a_config_without_sizes(field, write, tmp_path):
    with pytest.raises(ConversionError, match=f"does not say {field}"):
        convert(write("vispec", lambda config, tensors: config.pop(field)), tmp_path / "ours")


def test_a_config_value_that_cannot_be(write, tmp_path):
    source = write("vispec", lambda config, tensors: config.update(num_key_value_heads=3))
    with pytest.raises(ConversionError, match=r"num_attention_heads.*must be a multiple"):
        convert(source, tmp_path / "ours")
