"""The exact margin and the projection, against other ways to the same answers."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

from irl_exp.config import InputError
from irl_exp.solvers.convex import (
    best,
    effective_sample_size,
    held_out_losses,
    maximum_margin,
    project,
    response,
)
from tests.solvers.planted import plant

PENALTIES = [1.0, 3.0, 10.0, 30.0, 100.0, 300.0]


def by_quadratic_programming(phi: Tensor, penalty: float, policy: Tensor) -> NDArray[np.float64]:
    """The same minimum as it is written down: in w and a slack s >= max(0, 1 - w . dphi) a pair."""
    n, k, d = len(phi), phi.shape[1] // 2, phi.shape[2]
    pairs = [(i, p, q) for i in range(n) for p in range(k) for q in range(k)]
    dphi = np.array([(phi[i, p] - phi[i, k + q]).numpy() for i, p, q in pairs])
    costs = np.array([penalty * float(policy[i, q]) / (n * k) for i, p, q in pairs])
    left = np.hstack([dphi, np.eye(len(pairs))])

    def objective(z: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        return 0.5 * z[:d] @ z[:d] + costs @ z[d:], np.concatenate([z[:d], costs])

    found = minimize(
        objective,
        np.concatenate([np.zeros(d), np.ones(len(pairs))]),
        jac=True,
        method="SLSQP",
        bounds=[(None, None)] * d + [(0, None)] * len(pairs),
        constraints={"type": "ineq", "fun": lambda z: left @ z - 1, "jac": lambda z: left},
        options={"maxiter": 1000, "ftol": 1e-14},
    )
    return found.x[:d]


@pytest.mark.parametrize("penalty", [0.3, 10.0, 100.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_it_is_the_minimum(penalty: float, weighted: bool) -> None:
    phi = plant(12, k=2, d=4).phi
    policy = torch.full((12, 2), 1 / 2, dtype=phi.dtype)
    if weighted:
        scores = torch.randn(12, 2, dtype=phi.dtype, generator=torch.Generator().manual_seed(0))
        policy = scores.softmax(1)
    expected = by_quadratic_programming(phi, penalty, policy)
    found = maximum_margin(phi, penalty, policy if weighted else None)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_margin_found_by_hand() -> None:
    """Differences (2, 0) and (0, 4): the least w with w . dphi >= 1 is (1/2, 1/4)."""
    phi = torch.tensor([[[2.0, 0.0], [0.0, 0.0]], [[1.0, 5.0], [1.0, 1.0]]]).double()
    torch.testing.assert_close(
        maximum_margin(phi, 1e4), torch.tensor([0.5, 0.25]).double(), rtol=0, atol=1e-5
    )


def test_a_prompt_counts_once_and_its_constant_not_at_all() -> None:
    phi = plant(40, k=2, d=4).phi
    twice = phi.repeat_interleave(2, dim=1)  # the same completions, four times the pairs
    shifted = phi + torch.arange(40.0).double().view(-1, 1, 1)
    for other in (twice, shifted):
        torch.testing.assert_close(
            maximum_margin(other, 10.0), maximum_margin(phi, 10.0), rtol=0, atol=1e-4
        )


def test_no_pair_of_a_held_out_prompt_is_learned_from() -> None:
    """Where each prompt has an axis of its own, the others say nothing about it: the loss is 1."""
    phi = torch.zeros(9, 4, 9).double()
    for i in range(9):
        phi[i, :2, i] = torch.tensor([3.0, 2.0]).double()
    assert held_out_losses(phi, [1.0, 100.0], 3) == pytest.approx({1.0: 1.0, 100.0: 1.0})


def test_more_is_fitted_where_there_is_more_to_learn() -> None:
    """Against an expert that is the reference no penalty does better than no reward at all, whose
    loss is 1."""
    planted = plant(100, d=8)
    noise = planted.phi.clone()
    noise[:, :4] -= planted.covariance @ planted.w / planted.beta
    assert min(held_out_losses(noise, PENALTIES, 5).values()) > 0.99
    assert best(losses := held_out_losses(planted.phi, PENALTIES, 5)) > 1.0
    assert min(losses.values()) < 0.9
    assert best({10.0: 0.5, 3.0: 0.5, 1.0: 0.6}) == 3.0


def test_fewer_prompts_than_folds() -> None:
    with pytest.raises(InputError, match=r"solver\.folds=5: there are 4 training prompts"):
        held_out_losses(plant(4, d=3).phi, [1.0], 5)


def test_it_finds_a_planted_reward() -> None:
    planted = plant(500)
    w = maximum_margin(planted.phi, 30.0)
    assert planted.cosine(w) > 0.95
    assert planted.correlation(w) > 0.97


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n", "least"), [(100, 0.85), (300, 0.92), (1000, 0.97), (2000, 0.98), (10_000, 0.99)]
)
def test_it_finds_more_of_it_with_more_prompts(n: int, least: float) -> None:
    planted = plant(n)
    losses = held_out_losses(planted.phi, PENALTIES, 5)
    assert planted.cosine(maximum_margin(planted.phi, best(losses))) > least


# --- matching feature expectations --------------------------------------------------------------


def test_a_policy_answers_a_reward() -> None:
    """exp(R/beta) over each prompt's completions, R with standard deviation 1; none for a 0."""
    scores = torch.tensor([[1.0, 3.0], [3.0, 1.0]]).double()
    weights = torch.tensor([[-2.0, 2.0], [2.0, -2.0]]).double().exp()
    expected = weights / weights.sum(1, keepdim=True)
    torch.testing.assert_close(response(scores, 0.5), expected)
    torch.testing.assert_close(response(100 * scores, 0.5), expected)
    torch.testing.assert_close(response(0 * scores, 0.5), torch.full((2, 2), 0.5).double())
    assert effective_sample_size(torch.full((3, 4), 0.25)) == pytest.approx(4)
    assert effective_sample_size(torch.eye(4)) == pytest.approx(1)


def test_it_matches_an_expert_that_policies_can_match() -> None:
    """An even mixture of what two rewards induce: the stored completions, weighted."""
    planted = plant(200, k=8, d=6)
    reference = planted.phi[:, 8:]
    answers = [response(reference @ w, 0.5) for w in (planted.w, planted.w.flip(0))]
    policy = torch.stack(answers).mean(0)
    expert = torch.einsum("nk,nkd->nd", policy, reference)
    phi = torch.cat([expert.unsqueeze(1).expand(-1, 8, -1), reference], dim=1)
    rounds = list(project(phi, 0.5, 1e-3, 200))
    margins = [float(found.w.norm()) for found in rounds]
    assert margins[0] > 0.3
    assert margins[-1] < 1e-3
    assert margins == sorted(margins, reverse=True)


def test_it_matches_a_sampled_expert() -> None:
    """By policies that may go further from the reference than the expert did."""
    planted = plant(300, k=16)
    found = list(project(planted.phi, planted.kl_coef / 2, 0.01, 200))
    assert found[0].w.norm() > 1
    assert found[-1].w.norm() < 0.01


def test_it_stops_where_nothing_comes_closer() -> None:
    """Of four completions a prompt, no weights reach the expert: the nearest mixture is kept."""
    planted = plant(300)
    short = list(project(planted.phi, planted.kl_coef, 0.01, 200))
    long = list(project(planted.phi, planted.kl_coef, 1e-9, 5000))
    assert len(short) < 20
    assert 0.1 < long[-1].w.norm() < short[-1].w.norm() < long[-1].w.norm() + 0.01
    assert 1 < short[-1].effective_sample_size < 4


def test_policies_as_far_as_the_expert_give_its_reward_away() -> None:
    """Not so those that go further: inside of what they reach, what is left points anywhere."""
    planted = plant(300, k=64, d=16)
    far = list(project(planted.phi, planted.kl_coef, 0.01, 200))[-1]
    assert planted.cosine(far.w) > 0.95
    further = list(project(planted.phi, planted.kl_coef / 5, 0.01, 200))[-1]
    assert planted.cosine(further.w) < 0.9
