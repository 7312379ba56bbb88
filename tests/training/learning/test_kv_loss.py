"""The KV-cache loss: what is compared with what, where gradients flow, and that a weight of 0 is no loss at all."""

import copy
from dataclasses import replace

import pytest
import torch
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from hf_mmspec.modeling import TargetPrompt
from hf_mmspec.training.learning.collator import supervised_at
from hf_mmspec.training.learning.kv_loss import difference, passes_of
from hf_mmspec.training.recipes import Stage
from tests.generation import tiny
from tests.training.making import DRAFTERS, collated, gradients, llava_of_three_layers, module, record

AUTOREGRESSIVE = [name for name in DRAFTERS if not name.startswith("flash")]
every_drafter = pytest.mark.parametrize("name", AUTOREGRESSIVE)


@pytest.fixture(scope="module")
def target():
    return llava_of_three_layers()


def two(name):
    """Records of different lengths and pictures."""
    taps = name.startswith("eagle3")
    return record(18, 10, ((2, 5),), 0, taps), record(40, 25, ((3, 9), (9, 15)), 1, taps)


def with_kv(learning, **stage):
    """The same drafter, only the loss on keys and values counts."""
    zero = dict.fromkeys(learning.stage.loss, 0.0) | {"soft_cross_entropy": 1e-30}
    learning.stage = replace(learning.stage, **{"kv_loss_weight": 1.0, "loss": zero, **stage})
    return learning


@torch.no_grad()
def read(learning, each, length):
    """The drafter's state after it has read the first `length` ids of a record in serving."""
    known = each.cut_to(length)
    batch = collated(learning, replace(known, prompt_length=2))
    owns = learning.drafter.embed_tokens is not None
    embeds = (
        learning.drafter.embed(batch["input_ids"], learning.parts.borrowed) if owns else learning.merged_embeds(batch)
    )
    prompt = TargetPrompt(batch["input_ids"], embeds, batch["features"], each.spans)
    return learning.drafter.prefill(prompt, known.ids[-1:], learning.parts.borrowed)


def without_rotation(drafter, keys, position):
    """By another way than the package's: turned back by the negative angle."""
    cos, sin = drafter.rotary_emb(keys, torch.tensor([[position]]))
    return apply_rotary_pos_emb(keys, keys, cos, -sin)[1]


def last_row(drafter, cache, position, rows):
    """`(layers, 2, kv_heads, head_dim)` of the newest row, keys without rotation."""
    found = []
    for layer in range(len(drafter.layers)):
        keys, values = (each[layer][:, :, rows - 1 : rows] for each in (cache._keys, cache._values))
        found.append(torch.stack([without_rotation(drafter, keys, position), values])[:, 0, :, 0])
    return torch.stack(found)


@torch.no_grad()
@every_drafter
def test_keys_and_values_are_those_that_serving_writes(name, target):
    """Plain passes give what reading writes, unrolled ones what drafting writes: grouped heads, compressed images,
    EAGLE-3's wider input, own embeddings. The cache of serving is the reference."""
    learning, each = module(name, target), two(name)[1]
    drafter = learning.drafter
    assert drafter.config.num_key_value_heads < drafter.config.num_attention_heads or name == "eagle3, narrow"
    passes = learning.outputs(collated(learning, each), 0.0, 3, True).keys_values
    heads, size = drafter.config.num_key_value_heads, drafter.config.head_dim
    assert {tuple(found.shape) for found in passes} == {(1, 39, len(drafter.layers), 2, heads, size)}
    slot = 30
    state = read(learning, each, slot + 2)  # its last row is slot `slot`
    reading = last_row(drafter, state.cache, state.next_position - 1, state.cache.stable)
    torch.testing.assert_close(passes[0][0, slot], reading, atol=1e-4, rtol=1e-4)
    _, step = drafter.start_round(state, 4)
    hidden = state.last_hidden[:, None]
    for level in range(2):
        token = each.ids[slot + 2 + level]
        hidden = step(token[None, None], hidden, level, torch.ones(1, 1, level + 1).bool()).hidden
        drafted = last_row(drafter, state.cache, state.next_position + level, state.cache.stable + level + 1)
        torch.testing.assert_close(passes[level + 1][0, slot + 1 + level], drafted, atol=1e-4, rtol=1e-4)


@torch.no_grad()
@every_drafter
def test_the_loss_is_its_definition(name, target):
    """Half the mean absolute difference of keys plus half that of values, per supervised token, decayed by pass."""
    learning = with_kv(module(name, target), unroll_decay=0.5)
    batch = collated(learning, *two(name))
    passes, total = learning.outputs(batch, 0.0, 3, True).keys_values, 0.0
    for step in (1, 2):
        for row, slot in supervised_at(batch["labels"], step).nonzero().tolist():
            (keys, values), (true_keys, true_values) = (
                found[row, slot].transpose(0, 1) for found in (passes[step], passes[0])
            )
            total += 0.5**step * ((keys - true_keys).abs().mean() + (values - true_values).abs().mean()).item() / 2
    found = learning(**batch)
    count = int((batch["labels"] != -100).sum())
    assert found["terms"]["kv"].item() == pytest.approx(total / count, rel=1e-5)
    assert found["loss"].item() == pytest.approx(total / count, rel=1e-5)
    assert total > 0.01


@every_drafter
def test_gradients_reach_the_projections_and_stop_at_the_truth(name, target):
    learning = with_kv(module(name, target), unroll=1)
    batch = collated(learning, *two(name))
    _, found = gradients(learning, batch)
    for projection in ("k_proj", "v_proj"):
        assert found[f"layers.0.self_attn.{projection}.weight"].abs().sum() > 1e-3
    assert found["layers.0.mlp.down_proj.weight"].abs().sum() > 1e-4  # through the feature that is fed back
    written, wanted = torch.randn(2, 3, 1, 2, 2, 8, requires_grad=True)
    (gradient,) = torch.autograd.grad(difference(written, wanted).sum(), written, retain_graph=True)
    assert gradient.abs().sum() > 0
    with pytest.raises(RuntimeError, match="not have been used in the graph"):
        torch.autograd.grad(difference(written, wanted).sum(), wanted)


@every_drafter
def test_a_step_brings_what_is_drafted_nearer_to_what_was_read(name, target):
    """Nearer to the truth of before the step: that moves too, without being asked."""
    learning = with_kv(module(name, target), unroll=1)
    batch = collated(learning, *two(name))
    rows = supervised_at(batch["labels"], 1)
    drafted, read_ = (learning.outputs(batch, 0.0, 2, True).keys_values[step][rows].detach() for step in (1, 0))
    learning(**batch)["loss"].backward()
    with torch.no_grad():
        for parameter in learning.parameters():
            if parameter.grad is not None:
                parameter -= 1e-2 * parameter.grad
        after = learning.outputs(batch, 0.0, 2, True).keys_values[1][rows]
    assert difference(after, read_).sum() < difference(drafted, read_).sum() * (1 - 1e-6)


@every_drafter
def test_a_weight_of_zero_is_no_loss_and_no_work(name, target, monkeypatch):
    """Bit for bit the sum that a stage without such a field has, by the same passes."""
    learning = module(name, target, unroll=2)
    batch = collated(learning, *two(name))
    asked = []
    forward = type(learning.drafter).forward
    monkeypatch.setattr(
        type(learning.drafter),
        "forward",
        lambda self, *args, **options: asked.append(options) or forward(self, *args, **options),
    )
    loss, found = gradients(learning, batch)
    assert [each["steps"] for each in asked] == [2]
    assert "with_keys_values" not in asked[0]
    learning.zero_grad()
    total = torch.zeros(())
    wanted = batch.get("states", batch["features"]).roll(-1, 1)
    for step, hidden in enumerate(learning.hidden_states(batch)):
        rows = supervised_at(batch["labels"], step)
        terms = learning.summed_losses(hidden[rows], wanted[rows])
        summed = torch.zeros(())
        for term, weight in learning.stage.loss.items():
            summed = summed + weight * terms[term]
        total = total + learning.stage.unroll_decay**step * summed
    (total / (batch["labels"] != -100).sum()).backward()
    assert loss == (total / (batch["labels"] != -100).sum()).item()
    for parameter, value in learning.drafter.named_parameters():
        assert value.grad is None or torch.equal(value.grad, found[parameter]), parameter


@every_drafter
def test_the_other_terms_stay_what_they_are(name, target):
    """One extra pass feeds the KV loss alone, so that its weight adds and nothing else changes."""
    plain = module(name, target, unroll=1)
    with_loss = copy.deepcopy(plain)
    with_loss.stage = replace(plain.stage, kv_loss_weight=0.5)
    batch = collated(plain, *two(name))
    without, found = plain(**batch), with_loss(**batch)
    assert set(found["terms"]) == {*without["terms"], "kv"}
    for term, value in without["terms"].items():
        torch.testing.assert_close(found["terms"][term], value)
    torch.testing.assert_close(found["loss"], without["loss"] + 0.5 * found["terms"]["kv"])
    weighed = sum(weight * found["terms"][term] for term, weight in with_loss.weights.items())
    torch.testing.assert_close(found["loss"].detach(), weighed)


def keys_of(each, heads=2, size=8, seed=5):
    """A record with random keys and values of a target's layer."""
    made = torch.randn(len(each.ids) - 1, 2, heads, size, generator=torch.Generator().manual_seed(seed))
    return replace(each, keys_values=made)


@torch.no_grad()
@pytest.mark.parametrize("name", ["vispec", "eagle3"])
def test_a_target_layer_is_compared_at_the_tokens_own_position(name, target):
    """Slot j holds token j + 1; all passes count, and the plain one too."""
    learning = with_kv(module(name, target), kv_loss_target="target_layer", unroll=2, unroll_decay=0.5)
    each = keys_of(two(name)[1])
    batch = collated(learning, each)
    passes, total = learning.outputs(batch, 0.0, 2, True).keys_values, 0.0
    for step in (0, 1):
        for slot in supervised_at(batch["labels"], step)[0].nonzero()[:, 0].tolist():
            wanted = each.keys_values[slot + 1]
            total += 0.5**step * (passes[step][0, slot, -1] - wanted).abs().mean().item()
    count = int((batch["labels"] != -100).sum())
    assert learning(**batch)["terms"]["kv"].item() == pytest.approx(total / count, rel=1e-5)


def test_a_target_layer_needs_no_extra_pass_and_teaches_the_projections(target):
    learning = with_kv(module("msd", target), kv_loss_target="target_layer", unroll=1)
    assert passes_of(learning.stage) == 1
    _, found = gradients(learning, collated(learning, *map(keys_of, two("msd"))))
    assert found["layers.0.self_attn.k_proj.weight"].abs().sum() > 1e-3


@pytest.mark.parametrize(
    "stage, passes",
    [
        (Stage("s", unroll=1), 1),
        (Stage("s", unroll=1, kv_loss_weight=0.1), 2),
        (Stage("s", unroll=3, kv_loss_weight=0.1), 3),
        (Stage("s", unroll=1, kv_loss_target="target_layer", kv_loss_weight=0.1), 1),
    ],
)
def test_unrolled_passes_that_are_there_are_used(stage, passes):
    assert passes_of(stage) == passes


def test_noise_and_padding_do_not_leak(target):
    """What stands in the padding changes nothing."""
    learning = with_kv(module("vispec", target))
    short, long = two("vispec")
    batch = collated(learning, short, long)
    expected = learning(**batch)["terms"]["kv"]
    batch["features"][0, ~batch["attention_mask"][0]] = 50.0
    batch["input_ids"][0, ~batch["attention_mask"][0]] = tiny.VOCAB - 3
    torch.testing.assert_close(learning(**batch)["terms"]["kv"], expected)
