"""A start from another drafter: what fits is taken, the head's rows by token."""

import pytest
import torch

from hf_mmspec.modeling import FAMILIES
from hf_mmspec.training.learning.start_from import start_from
from hf_mmspec.training.recipes import RecipeError
from tests.training.making import DRAFTERS, TAPS, llava_of_three_layers


@pytest.fixture(scope="module")
def target():
    return llava_of_three_layers()


def drafter(family, target, seed, token_ids=None, **fields):
    torch.manual_seed(seed)
    ids = None if token_ids is None else torch.tensor(token_ids)
    return FAMILIES[family][1].from_target(target, ids, **fields)


def test_the_same_family_is_the_same_drafter(target):
    other, own = (drafter("vispec", target, seed, list(range(3, 40))) for seed in range(2))
    assert start_from(own, other) == 1.0
    for name, weight in own.named_parameters():
        assert torch.equal(weight, other.get_parameter(name)), name


def test_rows_of_the_head_go_by_token(target):
    other = drafter("eagle", target, 0, [5, 9, 30, 31])
    torch.nn.init.normal_(other.lm_head.weight)
    own = drafter("eagle", target, 1, [3, 9, 31, 44, 50])
    before = own.lm_head.weight.clone()
    assert 0 < start_from(own, other) < 1
    assert own.to_target_ids(torch.arange(5)).tolist() == [3, 9, 31, 44, 50]
    assert torch.equal(own.lm_head.weight[[1, 2]], other.lm_head.weight[[1, 3]])
    assert torch.equal(own.lm_head.weight[[0, 3, 4]], before[[0, 3, 4]])


@pytest.mark.parametrize("name", [name for name in DRAFTERS if name not in ("vispec", "eagle3", "eagle3, narrow")])
def test_other_families_share_their_trunk(name, target):
    other = drafter("vispec", target, 0, intermediate_size=64)
    own = drafter(name.split()[0], target, 1, **DRAFTERS[name], intermediate_size=64)
    assert 0 < start_from(own, other) <= 1
    assert torch.equal(own.layers[0].mlp.up_proj.weight, other.layers[0].mlp.up_proj.weight)


def test_another_width_is_refused(target):
    narrow = drafter("eagle3", target, 0, list(range(3, 40)), feature_layers=list(TAPS), hidden_size=16)
    with pytest.raises(RecipeError, match="width 32 cannot start from one of width 16"):
        start_from(drafter("vispec", target, 1, list(range(3, 40))), narrow)
