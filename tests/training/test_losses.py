"""Losses against their definitions."""

import torch

from hf_mmspec.training.losses import LOSSES, feature_regression, list_mle, soft_cross_entropy, total_variation


def test_soft_cross_entropy_is_least_at_the_target():
    target = torch.randn(5, 11)
    entropy = torch.distributions.Categorical(logits=target).entropy()
    torch.testing.assert_close(soft_cross_entropy(target, target), entropy)
    assert (soft_cross_entropy(torch.randn(5, 11), target) > entropy).all()


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


def test_every_loss_has_one_value_per_row_and_a_gradient():
    for loss in LOSSES.values():
        draft = torch.randn(4, 20, requires_grad=True)
        values = loss(draft, torch.randn(4, 20))
        assert values.shape == (4,)
        values.sum().backward()
        assert torch.isfinite(draft.grad).all()
    assert feature_regression(torch.randn(4, 6), torch.randn(4, 6)).shape == (4,)
