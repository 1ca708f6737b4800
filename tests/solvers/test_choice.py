"""Maximum likelihood on features of a tilted expert: unique, exact, and right in the end."""

from math import comb

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from irl_exp.modules.choice import log_choice
from irl_exp.solvers.choice import (
    POINTS,
    SETS,
    choice_loss,
    choice_slopes,
    most_likely,
    roughness,
)
from tests.solvers.planted import cosine, direction, planted

pytestmark = pytest.mark.usefixtures("one_thread")


def test_one_pair_a_prompt_is_logistic_regression() -> None:
    """Of differences, without intercept, under the same penalty; and both are at the minimum."""
    rng = np.random.default_rng(0)
    phi = planted(rng, 2 * direction(rng, 6), 200, k=1)
    ours = most_likely(phi, prior_scale=0.7)
    x = (phi[:, 0] - phi[:, 1]).numpy()
    rows, labels = np.concatenate([x, -x]), np.repeat([1, 0], len(x))  # it asks for two classes
    theirs = LogisticRegression(C=0.7**2 / 2, fit_intercept=False, tol=1e-12, max_iter=10_000)
    np.testing.assert_allclose(ours, theirs.fit(rows, labels).coef_[0], atol=1e-5)


@pytest.mark.parametrize(("size", "k"), [(1.0, 3), (300.0, 3), (1.0, 7), (300.0, 7)])
def test_value_gradient_and_hessian_are_those_of_the_likelihood(size: float, k: int) -> None:
    """Set by set, and by recursion, where there are too many sets."""
    assert comb(2 * 3, 3) <= SETS < comb(2 * 7, 7)
    rng = np.random.default_rng(1)
    phi, w, mean = planted(rng, np.ones(3), 5, k), size * np.ones(3), rng.normal(size=3)
    precision = np.array([[2.0, 0.5, 0.0], [0.5, 1.0, 0.0], [0.0, 0.0, 3.0]])

    def whole(weights: Tensor) -> Tensor:
        away = weights - torch.from_numpy(mean)
        return -log_choice(phi @ weights).sum() + away @ torch.from_numpy(precision) @ away / 2

    at = torch.from_numpy(w).requires_grad_()
    value, gradient, hessian = choice_loss(phi, mean, precision)(w)
    assert value == pytest.approx(float(whole(at).detach()))
    expected = torch.autograd.grad(whole(at), at)[0].numpy()
    np.testing.assert_allclose(gradient, expected, rtol=1e-10)
    exact = torch.autograd.functional.hessian(whole, at).numpy()
    np.testing.assert_allclose(hessian, exact, rtol=1e-8, atol=1e-12)

    points = w + rng.normal(size=(2 * POINTS + 1, 3))
    values, gradients = choice_slopes(phi, mean, precision)(points)
    one_by_one = [choice_loss(phi, mean, precision)(point) for point in points]
    np.testing.assert_allclose(values, [value for value, *_ in one_by_one])
    np.testing.assert_allclose(gradients, [slope for _, slope, _ in one_by_one], atol=1e-9)


def test_the_fit_is_the_minimum_wherever_one_starts() -> None:
    """Also on few, separable prompts, where only the prior keeps it finite."""
    rng = np.random.default_rng(2)
    phi = planted(rng, 3 * direction(rng, 40), 10)
    w = most_likely(phi, prior_scale=10.0)
    value, gradient, _ = choice_loss(phi, np.zeros(40), np.eye(40) / 100)(w)
    assert np.abs(gradient).max() < 1e-8
    for _ in range(20):
        assert choice_loss(phi, np.zeros(40), np.eye(40) / 100)(rng.normal(size=40) * 3)[0] > value


def test_roughness_bounds_third_derivatives() -> None:
    """|f'''| <= M |u|_H f'' in every direction, at the minimum and far from it."""
    rng = np.random.default_rng(3)
    for k in (1, 2, 4):
        phi = planted(rng, direction(rng, 4), 6, k)
        loss = choice_loss(phi, np.zeros(4), np.eye(4) / 100)
        best = most_likely(phi, prior_scale=10.0)
        hessian = loss(best)[2]
        bound, step, tightest = roughness(phi, hessian), 1e-4, 0.0
        for _ in range(200):
            u = rng.normal(size=4)
            u /= (u @ hessian @ u) ** 0.5
            w = best + rng.exponential() * u * rng.choice([-1, 1])
            second, after, before = (u @ loss(w + s * u)[2] @ u for s in (0, step, -step))
            tightest = max(tightest, abs(after - before) / (2 * step) / second)
        assert 0.1 * bound < tightest <= bound


@pytest.mark.slow
def test_the_reward_is_found_as_prompts_grow() -> None:
    """Consistent, and as the likelihood knows beta, in length too."""
    rng = np.random.default_rng(4)
    w = direction(rng, 32)
    found = {n: most_likely(planted(rng, w, n), prior_scale=1.0) for n in (100, 300, 1000, 2000)}
    cosines = [cosine(fit, w) for fit in found.values()]
    assert cosines == sorted(cosines)
    assert cosines[-1] >= 0.95
    assert np.linalg.norm(found[2000]) == pytest.approx(1.0, abs=0.1)
