"""Losses against their definitions, and at logits as extreme as they come."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_mmspec.training.learning.losses import (
    LOSSES,
    acceptance,
    feature_regression,
    list_mle,
    lk_hybrid,
    reverse_kl,
    soft_cross_entropy,
    total_variation,
)

logits = st.lists(st.floats(-20, 20, width=32), min_size=4, max_size=4).map(lambda row: torch.tensor([row]))
pairs = st.tuples(logits, logits)


def distributions(draft, target):
    return draft.double().softmax(-1), target.double().softmax(-1)


def test_soft_cross_entropy_is_least_at_the_target():
    target = torch.randn(5, 11)
    entropy = torch.distributions.Categorical(logits=target).entropy()
    torch.testing.assert_close(soft_cross_entropy(target, target), entropy)
    assert (soft_cross_entropy(torch.randn(5, 11), target) > entropy).all()


@settings(max_examples=50, deadline=None)
@given(pairs)
def test_each_is_its_definition(pair):
    draft, target = pair
    q, p = distributions(draft, target)
    taken = torch.minimum(p, q).sum(-1)
    expected = {
        soft_cross_entropy: -(p * q.log()).sum(-1),
        reverse_kl: (q * (q / p).log()).sum(-1),
        total_variation: (p - q).abs().sum(-1),
        acceptance: -taken.log(),
    }
    weight = torch.exp(-3 * taken)
    expected[lk_hybrid] = weight * expected[soft_cross_entropy] + (1 - weight) * (1 - taken)
    for loss, value in expected.items():
        torch.testing.assert_close(loss(draft, target).double(), value, atol=1e-4, rtol=1e-4)


@settings(max_examples=50, deadline=None)
@given(pairs)
def test_reverse_kl_is_never_negative(pair):
    draft, target = pair
    assert reverse_kl(draft, target).item() > -1e-5
    assert reverse_kl(target, target + 3).item() == pytest.approx(0, abs=1e-5)


def test_total_variation():
    certain = torch.tensor([[100.0, 0.0]])
    assert total_variation(certain, certain).item() == 0
    torch.testing.assert_close(total_variation(certain, certain.flip(-1)), torch.tensor([2.0]))


def test_list_mle_is_the_plackett_luce_likelihood():
    draft, target = torch.tensor([[1.0, 2.0, 0.5]]), torch.tensor([[3.0, 1.0, 2.0]])  # order 0, 2, 1
    weights = draft[0].exp()
    expected = -torch.log(weights[0] / weights.sum() * weights[2] / (weights[2] + weights[1]))
    torch.testing.assert_close(list_mle(draft, target), expected[None])
    assert list_mle(target, target) < list_mle(-target, target)


def test_list_mle_ranks_the_best_ten_only():
    draft, target = torch.randn(1, 30), torch.arange(30.0)[None]
    other = draft.clone()
    other[0, :20] = torch.randn(20)
    assert torch.equal(list_mle(draft, target), list_mle(other, target))


def test_the_hybrid_turns_from_cross_entropy_to_total_variation():
    """Nothing accepted: cross-entropy alone. All accepted: total variation weighs 1 - exp(-3)."""
    draft, target = torch.tensor([[9.0, -9.0]]), torch.tensor([[-9.0, 9.0]])
    torch.testing.assert_close(lk_hybrid(draft, target), soft_cross_entropy(draft, target), atol=1e-4, rtol=1e-4)
    certain = torch.tensor([[50.0, -50.0, 0.0]])
    near = (certain - torch.tensor([[0.0, 0.0, -49.0]])).requires_grad_()
    taken = math.exp(-acceptance(near, certain).item())
    assert taken == pytest.approx(1 / (1 + math.exp(-1)), abs=1e-4)
    weight = math.exp(-3 * taken)
    expected = weight * soft_cross_entropy(near, certain) + (1 - weight) * total_variation(near, certain) / 2
    torch.testing.assert_close(lk_hybrid(near, certain), expected)
    same = torch.randn(1, 7)
    weight = math.exp(-3)
    torch.testing.assert_close(lk_hybrid(same, same), weight * soft_cross_entropy(same, same))


def test_the_hybrids_weights_have_no_gradient():
    draft, target = torch.randn(1, 5, requires_grad=True), torch.randn(1, 5)
    (found,) = torch.autograd.grad(lk_hybrid(draft, target).sum(), draft)
    weight = torch.exp(-3 * (-acceptance(draft, target)).exp()).detach()
    fixed = weight * soft_cross_entropy(draft, target) + (1 - weight) * total_variation(draft, target) / 2
    torch.testing.assert_close(found, torch.autograd.grad(fixed.sum(), draft)[0])


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_has_one_value_per_row_and_a_gradient(name):
    draft, target = torch.randn(4, 20, requires_grad=True), torch.randn(4, 20)
    values = LOSSES[name](draft, target)
    assert values.shape == (4,)
    (gradient,) = torch.autograd.grad(values.sum(), draft)
    assert (gradient.abs().sum(-1) > 1e-4).all()
    # rows do not mix
    torch.testing.assert_close(LOSSES[name](draft[2:3], target[2:3]), values[2:3])


EXTREME = {
    "opposite": ([1e4, -1e4, 0.0, 5.0], [-1e4, 1e4, 0.0, 5.0]),
    "equal": ([1e4, -1e4, 0.0, 1.0], [1e4, -1e4, 0.0, 1.0]),
    "flat": ([1e4] * 4, [-1e4] * 4),
    "masked": ([3.0, 1.0, 2.0, -math.inf], [1.0, 2.0, 3.0, -math.inf]),
}


@pytest.mark.parametrize("logits", EXTREME.values(), ids=EXTREME)
@pytest.mark.parametrize("name", LOSSES)
def test_values_and_gradients_stay_finite(name, logits):
    """Ids that no drafter may say are masked by -inf on both sides."""
    draft, target = (torch.tensor([row]) for row in logits)
    draft.requires_grad_()
    value = LOSSES[name](draft, target)
    value.sum().backward()
    assert torch.isfinite(value).all()
    assert torch.isfinite(draft.grad).all()


@pytest.mark.parametrize("name", LOSSES)
def test_masked_ids_do_not_count(name):
    draft, target = torch.randn(3, 6), torch.randn(3, 6)
    masked = [torch.nn.functional.pad(each, (0, 2), value=-math.inf) for each in (draft, target)]
    torch.testing.assert_close(LOSSES[name](*masked), LOSSES[name](draft, target))


def test_feature_regression_is_smooth_l1():
    hidden, features = torch.tensor([[0.5, 3.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.0], [0.0, 0.0]])
    torch.testing.assert_close(feature_regression(hidden, features), torch.tensor([(0.125 + 2.5) / 2, 0.0]))
    assert feature_regression(hidden.bfloat16(), features).dtype == torch.float32
