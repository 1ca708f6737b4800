"""Posteriors over planted rewards: known answers, and calibration where the prior is true."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.integrate import quad
from scipy.special import expit
from torch import Tensor

from irl_exp.modules.choice import log_choice
from irl_exp.solvers.bayesian import (
    Gaussian,
    doubt,
    likely_scale,
    log_evidence,
    rounds,
    update,
)
from irl_exp.solvers.choice import most_likely
from irl_exp.solvers.linear import differences, matched
from tests.solvers.planted import cosine, direction, planted

pytestmark = pytest.mark.usefixtures("one_thread")
K = 4


def as_pools(deltas: Tensor) -> Tensor:
    """Pairs [n, m, d] as n*m pools of two."""
    pairs = deltas.flatten(0, 1)
    return torch.stack([pairs, torch.zeros_like(pairs)], 1)


def test_the_covariance_is_the_inverse_of_the_hessian() -> None:
    rng = np.random.default_rng(0)
    phi, prior = planted(rng, np.ones(4), 30), Gaussian(rng.normal(size=4), np.diag([1.0, 2, 3, 4]))
    posterior = update(prior, phi)

    def negative_log(w: Tensor) -> Tensor:
        away = w - torch.from_numpy(prior.mean)
        precision = torch.from_numpy(np.diag(1 / np.array([1.0, 2, 3, 4])))
        return -log_choice(phi @ w).sum() + away @ precision @ away / 2

    at = torch.from_numpy(posterior.mean)
    slope = torch.autograd.functional.jacobian(negative_log, at)
    assert float(slope.abs().max()) < 1e-7
    hessian = torch.autograd.functional.hessian(negative_log, at).numpy()
    np.testing.assert_allclose(posterior.covariance, np.linalg.inv(hessian), rtol=1e-8, atol=1e-12)


def test_the_mean_of_one_round_is_the_maximum_entropy_reward() -> None:
    rng = np.random.default_rng(1)
    phi = planted(rng, direction(rng, 5), 50)
    posterior = update(Gaussian.prior(5, 0.8), phi)
    np.testing.assert_allclose(posterior.mean, most_likely(phi, 0.8), atol=1e-8)


def test_rounds_share_the_prompts_and_only_narrow() -> None:
    """Five rounds end where one round does, but for the approximation; each knows more."""
    rng = np.random.default_rng(2)
    phi, prior = planted(rng, direction(rng, 5), 203), Gaussian.prior(5, 1.0)
    beliefs = list(rounds(prior, phi, 5))
    volumes = [np.linalg.slogdet(belief.covariance)[1] for belief in [prior, *beliefs]]
    assert len(beliefs) == 5
    assert volumes == sorted(volumes, reverse=True)
    whole = update(prior, phi)
    distance = np.linalg.solve(whole.covariance, beliefs[-1].mean - whole.mean)
    assert float(distance @ (beliefs[-1].mean - whole.mean)) < 0.3**2 * 5
    np.testing.assert_allclose(beliefs[-1].covariance, whole.covariance, atol=2e-3)
    assert len(list(rounds(prior, phi[:3], 5))) == 3


def test_a_single_weight_against_numerical_integration() -> None:
    """Posterior, predictive probability and evidence, where a grid can say what they are."""
    rng = np.random.default_rng(3)
    phi, scale = planted(rng, np.array([0.5]), 60), 1.5
    posterior = update(Gaussian.prior(1, scale), phi)

    def joint(w: float) -> float:
        likelihood = float(log_choice(phi[..., 0] * w).sum())
        return float(np.exp(likelihood - peak) * stats.norm.pdf(w, scale=scale))

    peak = float(log_choice(phi[..., 0] * posterior.mean[0]).sum())
    window = (posterior.mean[0] - 2, posterior.mean[0] + 2)
    mass = quad(joint, *window, points=[posterior.mean[0]])[0]
    mean = quad(lambda w: w * joint(w), *window)[0] / mass
    variance = quad(lambda w: (w - mean) ** 2 * joint(w), *window)[0] / mass
    assert posterior.mean[0] == pytest.approx(mean, abs=0.02)
    assert posterior.covariance[0, 0] == pytest.approx(variance, rel=0.05)
    assert log_evidence(phi, scale) == pytest.approx(np.log(mass) + peak, abs=0.02)
    chance = quad(lambda w: expit(2 * w) * joint(w), *window)[0] / mass
    assert posterior.pair_probability(np.array([[2.0]]))[0] == pytest.approx(chance, abs=0.01)


@pytest.mark.parametrize(("mean", "variance"), [(0.0, 4.0), (1.0, 0.0), (2.0, 9.0), (-3.0, 1.0)])
def test_doubt_pulls_a_probability_toward_one_half(mean: float, variance: float) -> None:
    found = Gaussian(np.array([mean]), np.array([[variance]])).pair_probability(np.ones((1, 1)))[0]
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    exact = expit(mean + variance**0.5 * nodes) @ weights / weights.sum()
    assert found == pytest.approx(exact, abs=0.02)
    assert abs(found - 0.5) <= abs(expit(mean) - 0.5)


def test_the_evidence_finds_the_scale_that_was_planted() -> None:
    rng = np.random.default_rng(4)
    for scale in (0.1, 0.5):
        phi = planted(rng, scale * rng.normal(size=30), 400)
        assert likely_scale(phi) == pytest.approx(scale, rel=0.5)


def test_a_placebo_teaches_nothing() -> None:
    """Reference against reference: the evidence sees no reward at all, pairs stay at one half."""
    rng = np.random.default_rng(5)
    phi = planted(rng, np.zeros(20), 200)
    scale = likely_scale(phi)
    assert scale < 0.1
    posterior = update(Gaussian.prior(20, scale), phi)
    deltas = matched(planted(rng, np.zeros(20), 50)).flatten(0, 1).numpy()
    assert np.abs(posterior.pair_probability(deltas) - 0.5).max() < 0.25


def test_doubt_on_held_out_pairs() -> None:
    rng = np.random.default_rng(6)
    w = direction(rng, 8)
    held_out = matched(planted(rng, w, 1000)).flatten(0, 1).numpy()
    beliefs = list(rounds(Gaussian.prior(8, 0.4), planted(rng, w, 200), 4))
    first, *_, last = (doubt(belief, held_out) for belief in beliefs)
    assert last["validation_calibration_error"] < 0.03
    assert 0 < last["validation_epistemic_entropy"] < first["validation_epistemic_entropy"] / 2
    sure = replace(beliefs[-1], mean=3 * beliefs[-1].mean)
    assert doubt(sure, held_out)["validation_calibration_error"] > 0.1


def test_it_is_saved_and_loaded(tmp_path: Path) -> None:
    posterior = Gaussian(np.array([1.0, 2.0]), np.array([[2.0, 0.5], [0.5, 1.0]]).T)
    posterior.save(tmp_path, torch.tensor([3.0, 4.0], dtype=torch.float64))
    loaded, scale = Gaussian.load(tmp_path)
    np.testing.assert_array_equal(loaded.mean, posterior.mean)
    np.testing.assert_array_equal(loaded.covariance, posterior.covariance)
    np.testing.assert_array_equal(scale, [3.0, 4.0])


@pytest.mark.slow
def test_calibration_by_simulation() -> None:
    """300 rewards from the prior: posteriors hold what they promise (Talts et al. 2018), also after
    three rounds; counting all k^2 pairs as observations breaks that."""
    rng, d, scale = np.random.default_rng(7), 8, 0.5
    root = np.linalg.cholesky(0.5 ** np.abs(np.subtract.outer(np.arange(d), np.arange(d))))
    prior = Gaussian.prior(d, scale)
    ranks: dict[str, list[float]] = {"choice": [], "rounds": [], "matched": [], "all pairs": []}
    for _ in range(300):
        w = scale * rng.normal(size=d)
        phi = planted(rng, w, 60, K, root)
        delta = root @ rng.normal(size=d)
        posteriors = {
            "choice": update(prior, phi),
            "rounds": list(rounds(prior, phi, 3))[-1],
            "matched": update(prior, as_pools(matched(phi))),
            "all pairs": update(prior, as_pools(differences(phi))),
        }
        for name, posterior in posteriors.items():
            mean, variance = posterior.of(delta[None])
            ranks[name].append(float(stats.norm.cdf((w @ delta - mean[0]) / variance[0] ** 0.5)))

    def covered(name: str) -> float:
        return float(np.mean(np.abs(np.array(ranks[name]) - 0.5) < 0.45))

    def p_value(name: str) -> float:
        return float(stats.chisquare(np.histogram(ranks[name], 15, (0, 1))[0]).pvalue)

    for name in ("choice", "rounds", "matched"):
        assert 0.86 <= covered(name) <= 0.94, name
        assert p_value(name) > 0.01, name
    assert covered("all pairs") < 0.75
    assert p_value("all pairs") < 1e-6


@pytest.mark.slow
def test_the_mean_finds_the_reward() -> None:
    rng = np.random.default_rng(8)
    w = direction(rng, 32)
    posterior = list(rounds(Gaussian.prior(32, 1.0), planted(rng, w, 2000), 5))[-1]
    assert cosine(posterior.mean, w) >= 0.95
