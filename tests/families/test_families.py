"""Families of targets that people run: with a drafter each gives what `generate` gives, or it is refused by name."""

from functools import cache
from itertools import product

import pytest
import torch

from tests.generation.doubles import OracleDrafter, RandomDrafter
from tests.generation.test_every_family import SHAPES, build
from tests.generation.test_lossless_greedy import assert_same, new_tokens, run
from tests.generation.turning import WAYS, turned
from tests.slow_parameters import others_slow, slow

from . import dense, mrope, refused, rows, windows
from .family import picture_spans

WORKING = dense.FAMILIES | mrope.FAMILIES | windows.FAMILIES
DRAFTERS = ("eagle", "vispec", "eagle3")
NEW = dict(max_new_tokens=16, eos_token_id=1)  # not the one that some of them say at once


@cache
def answered(target):
    """A model, and for each prompt what `generate` answers without a drafter."""
    family = WORKING[target]
    model = family.model()
    answers = [(inputs, run(model, inputs, **NEW)) for inputs in family.prompts(model)]
    assert any(len(set(new_tokens(answer[0], inputs))) > 2 for inputs, answer in answers), "always the same token"
    return model, answers


@pytest.mark.parametrize("shape", others_slow(SHAPES, ["tree"]))
@pytest.mark.parametrize("target", WORKING)
def test_right_and_wrong_drafts(target, shape):
    """Whole trees are kept, or none of them; pictures are where the drafter is told."""
    model, answers = answered(target)
    for inputs, expected in answers:
        for drafter in (RandomDrafter(model), OracleDrafter(model, new_tokens(expected[0], inputs))):
            check_drafts(model, inputs, expected, drafter, shape)


@pytest.mark.parametrize("target", WORKING)
def test_chains_of_right_drafts(target):
    """The prompt with pictures."""
    model, answers = answered(target)
    inputs, expected = answers[-1]
    check_drafts(model, inputs, expected, OracleDrafter(model, new_tokens(expected[0], inputs)), "chain")


def check_drafts(model, inputs, expected, drafter, shape):
    assert_same(expected, run(model, inputs, assistant_model=drafter, **SHAPES[shape], **NEW), shape)
    assert drafter.prompts[0].visual_spans == picture_spans(inputs["input_ids"])


@pytest.mark.parametrize(
    "name, shapes",
    [
        pytest.param("vispec", ("tree", "chain"), id="vispec"),
        *(pytest.param(name, ("tree",), id=name) for name in DRAFTERS if name != "vispec"),
        *(slow(name, ("tree", "chain"), id=f"{name}, all shapes") for name in DRAFTERS if name != "vispec"),
    ],
)
@pytest.mark.parametrize("target", WORKING)
def test_drafters(target, name, shapes):
    """The prompt with pictures, with random drafters over the answer's own tokens, so that some are accepted."""
    model, answers = answered(target)
    inputs, expected = answers[-1]
    drafter = build(name, model, torch.tensor(new_tokens(expected[0], inputs)).unique())
    accepted = 0
    for shape in shapes:
        actual = run(model, inputs, assistant_model=drafter, **SHAPES[shape], **NEW)
        assert_same(expected, actual, (name, shape))
        accepted += sum(actual[0].speculation.accepted)
    assert accepted > 0


@pytest.mark.parametrize(
    "target, way",
    others_slow(product(WORKING, WAYS), [(target, WAYS[number % len(WAYS)]) for number, target in enumerate(WORKING)]),
)
def test_a_view_that_multiplies_the_other_way_round(target, way):
    model, answers = answered(target)
    inputs, expected = answers[-1]
    drafter = OracleDrafter(model, new_tokens(expected[0], inputs))
    with turned(way) as products:
        assert_same(expected, run(model, inputs, assistant_model=drafter, **SHAPES["tree"], **NEW), way)
    assert products.of(model)


@pytest.mark.parametrize("lengths", [(5,), (5, 9)])
def test_states_of_several_streams(lengths):
    """Gemma 3n has `(streams, B, T, H)` for some layers."""
    family = WORKING["Gemma 3n"]
    model = family.model()
    counts = rows.visual_tokens(family, model)
    inputs = rows.batch(family, [rows.prompt(family, counts, seed, 0, length) for seed, length in enumerate(lengths)])
    wanted = dict(**NEW, do_sample=False, output_hidden_states=True, return_dict_in_generate=True)
    expected = model.generate(**inputs, **wanted)
    actual = model.generate(**inputs, **wanted, assistant_model=RandomDrafter(model), **SHAPES["tree"])
    assert any(layer.dim() == 4 for layer in expected.hidden_states[0])
    # the first step holds the prompt, which has no states worth comparing at padding
    for step, other in zip(actual.hidden_states[1:], expected.hidden_states[1:], strict=True):
        torch.testing.assert_close(step, other, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", refused.FAMILIES)
def test_refused_before_any_work(name, monkeypatch):
    family = refused.FAMILIES[name]
    model = family.model()
    drafter = RandomDrafter(model)
    (inputs,) = family.prompts(model)

    def forward(*args, **kwargs):
        raise AssertionError("the model was run")

    monkeypatch.setattr(model, "forward", forward)
    with pytest.raises(ValueError, match=type(model).__name__):
        model.generate(**inputs, assistant_model=drafter)
