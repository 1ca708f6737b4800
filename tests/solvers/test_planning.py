"""The margin against policies, on planted rewards."""

import pytest
import torch

from irl_exp.solvers.convex import (
    best,
    held_out_losses,
    margin_against,
    maximum_margin,
    response,
)
from irl_exp.solvers.planning import Policy, mixture, plan, reweighted
from tests.solvers.planted import plant


def test_the_first_round_meets_the_reference_and_the_next_its_own_policy_too() -> None:
    planted = plant(60, d=6)
    first, second = plan(planted.phi, 10.0, reweighted(planted.phi, planted.kl_coef), 2)
    torch.testing.assert_close(first.w, maximum_margin(planted.phi, 10.0))
    policy = response(planted.phi[:, 4:] @ first.w, planted.kl_coef)
    torch.testing.assert_close(first.policy.weights, policy)
    torch.testing.assert_close(
        second.w, maximum_margin(planted.phi, 10.0, (policy + 0.25) / 2), rtol=0, atol=1e-4
    )


def test_the_numbers_of_a_round_by_hand() -> None:
    """One feature; R = w phi, and w is the penalty's least: differences 1 and 2, 0.5 and 1.5."""
    phi = torch.tensor([[[2.0], [2.0], [1.0], [0.0]], [[1.5], [1.5], [1.0], [0.0]]]).double()
    (found,) = plan(phi, 0.2, reweighted(phi, 1.0), 1)
    # Every margin stays below 1, so w = C times the mean difference, 5/4.
    torch.testing.assert_close(found.w, torch.tensor([0.25]).double(), rtol=0, atol=1e-6)
    losses = [1 - 0.25 * difference for difference in (1.0, 2.0, 0.5, 1.5)]
    assert found.loss == pytest.approx(sum(losses) / 4, abs=1e-6)
    better = torch.tensor(2.0).exp() / (1 + torch.tensor(2.0).exp())  # R is 2 sd apart
    assert found.policy.weights[:, 0].tolist() == pytest.approx([float(better)] * 2)
    assert found.lead == pytest.approx((1.75 - float(better)) / 0.5, abs=1e-6)


def test_it_finds_a_planted_reward() -> None:
    planted = plant(500)
    rounds = list(plan(planted.phi, 30.0, reweighted(planted.phi, planted.kl_coef), 5))
    assert len(rounds) == 5
    assert all(planted.cosine(found.w) > 0.94 for found in rounds)
    assert all(found.lead > 0 for found in rounds)


def test_it_ends_when_a_policy_is_as_good_as_the_expert() -> None:
    """One that goes further than the expert did; there is nothing more to learn from it."""
    planted = plant(300, k=16)
    rounds = list(plan(planted.phi, 30.0, reweighted(planted.phi, planted.kl_coef / 2), 20))
    assert len(rounds) < 20
    assert rounds[-1].lead <= 0 < min([found.lead for found in rounds[:-1]], default=1)
    assert planted.cosine(rounds[-1].w) > 0.95


def test_a_mixture_of_policies_is_that_of_their_margins() -> None:
    """Of the same completions weights are added; others stand beside them. Either way the margin is
    that against all of them, each policy as probable."""
    phi = plant(40, k=2, d=5).phi
    one, other = (Policy(phi[:, 2:], w) for w in (torch.ones(40, 2) / 2, torch.eye(2)[[0] * 40]))
    turned = Policy(other.phi.flip(1), other.weights.flip(1))
    same, apart = mixture(one, 3, other), mixture(one, 3, turned)
    assert same.phi.shape == (40, 2, 5) and apart.phi.shape == (40, 4, 5)
    torch.testing.assert_close(same.weights[0], torch.tensor([0.625, 0.375]))
    torch.testing.assert_close(apart.weights[0], torch.tensor([0.375, 0.375, 0.0, 0.25]))
    w, same_w = (margin_against(phi[:, :2], m.phi, m.weights, 10.0) for m in (apart, same))
    torch.testing.assert_close(w, same_w, rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("n", "least"), [(100, 0.8), (300, 0.9), (1000, 0.96), (2000, 0.98)])
def test_it_finds_more_of_it_with_more_prompts(n: int, least: float) -> None:
    planted = plant(n)
    penalty = best(held_out_losses(planted.phi, [1.0, 3.0, 10.0, 30.0, 100.0, 300.0], 5))
    *_, found = plan(planted.phi, penalty, reweighted(planted.phi, planted.kl_coef), 5)
    assert planted.cosine(found.w) > least
