"""The start in closed form: better than noise where there is such an `fc`, refused elsewhere."""

import pytest
import torch

from hf_mmspec.modeling import Eagle3Drafter
from hf_mmspec.training.judging.ranks import measure_ranks
from hf_mmspec.training.learning.warm_start import warm_start
from hf_mmspec.training.recipes import RecipeError
from tests.generation import tiny
from tests.training.making import DRAFTERS, collated, llava_of_three_layers, module, record


@pytest.fixture(scope="module")
def target():
    return llava_of_three_layers()


def linear_records():
    """Answers whose states follow from the embedding and the state before by one matrix, and tokens from states."""
    generator = torch.Generator().manual_seed(3)
    target = llava_of_three_layers()
    step = torch.randn(2 * tiny.HIDDEN, tiny.HIDDEN, generator=generator) / tiny.HIDDEN**0.5
    step[: tiny.HIDDEN] *= 5  # embeddings are small
    records = []
    for seed in range(8):
        each = record(60, 10, ((2, 5),), seed)
        with torch.no_grad():
            for i in range(8, len(each.features) - 1):
                token = target.get_input_embeddings().weight[each.ids[i + 1]]
                each.features[i + 1] = torch.cat([token, each.features[i]]) @ step
                each.ids[i + 2] = target.lm_head(each.features[i + 1])[3:110].argmax() + 3
        records.append(each)
    return records


@pytest.mark.parametrize("name", ["vispec", "msd", "eagle"])
def test_it_beats_noise(name, target):
    learning, records = module(name, target, loss={"feature_regression": 1.0}), linear_records()
    if learning.drafter.img_fc is not None:
        torch.nn.init.eye_(learning.drafter.img_fc.weight)  # as it starts
    noise = measure_ranks(learning, [records], depth=2).chain
    before = learning(**collated(learning, *records))["loss"].item()
    warm_start(learning, [records[:3], records[3:]], ridge=1e-6)
    assert learning(**collated(learning, *records))["loss"].item() < 0.3 * before
    assert measure_ranks(learning, [records], depth=2).chain > noise + 0.3


def test_it_is_the_ridge_regression(target):
    """Against a solver of the whole system, one row for each supervised token."""
    learning, records = module("eagle", target), [record(40, 10, (), seed) for seed in range(4)]
    warm_start(learning, [records], ridge=0.1)
    table = target.get_input_embeddings().weight.detach()
    rows, wanted = [], []
    for each in records:
        for slot in range(each.prompt_length - 1, len(each.ids) - 2):
            rows.append(torch.cat([table[each.ids[slot + 1]], each.features[slot], torch.ones(1)]))
            wanted.append(each.features[slot + 1])
    rows, wanted = torch.stack(rows).double(), torch.stack(wanted).double()
    gram = rows.T @ rows
    halves = gram.diagonal()[:-1].split(tiny.HIDDEN)
    penalty = torch.cat([*(half.mean().expand(tiny.HIDDEN) for half in halves), torch.zeros(1).double()])
    solution = torch.linalg.solve(gram + 0.1 * penalty.diag(), rows.T @ wanted).T
    torch.testing.assert_close(learning.drafter.fc.weight.double(), solution[:, :-1], atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(learning.drafter.fc.bias.double(), solution[:, -1], atol=1e-3, rtol=1e-3)


def test_the_layer_starts_near_zero(target):
    learning = module("msd", target)
    before = [learning.drafter.layers[0].self_attn.o_proj.weight, learning.drafter.layers[0].mlp.down_proj.weight]
    before = [weight.clone() for weight in before]
    warm_start(learning, [[record(seed=seed) for seed in range(3)]])
    layer = learning.drafter.layers[0]
    for weight, old in zip((layer.self_attn.o_proj.weight, layer.mlp.down_proj.weight), before, strict=True):
        torch.testing.assert_close(weight, 0.1 * old)


@pytest.mark.parametrize("name", [name for name in DRAFTERS if name.startswith(("flash", "eagle3"))])
def test_families_without_such_a_layer_are_refused(name, target):
    learning = module(name, target)
    with pytest.raises(RecipeError, match=f"closed_form_start: {learning.drafter.config.model_type} has no"):
        warm_start(learning, [])


def test_two_taps_are_as_wide_but_are_no_embedding(target):
    learning = module("eagle3", target)
    learning.drafter = Eagle3Drafter.from_target(target, feature_layers=[0, 2])
    with pytest.raises(RecipeError, match="closed_form_start: eagle3 has no"):
        warm_start(learning, [])
