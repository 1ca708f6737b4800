"""A mean-field posterior: the Gaussian with independent weights that is nearest to the true one.

The family of Bou et al. 2025 (arXiv 2510.06096). They draw from it to maximize the evidence lower
bound; here the bound is computed, for a pair's likelihood depends on w through one number alone,
w . delta, which is Gaussian too. So there is one maximum, found to rounding, and no chance in it.
"""

import numpy as np
from scipy.special import expit

from irl_exp.metrics.identifiability import Array, Loss, minimum
from irl_exp.metrics.uncertainty import NODES

# Under the root of a logit's variance, so that it has a slope where there is none.
TINY = 1e-12


def nearest(mean: Array, deviation: Array, deltas: Array) -> tuple[Array, Array]:
    """(mean [d], standard deviation [d]) of the posterior, from those of the prior.

    deltas [n, d] are the features of aligned completions less those of reference completions, of
    pairs that count as independent.
    """
    loss = negative_elbo(mean, deviation, deltas)
    found = minimum(loss, np.concatenate([mean, deviation]))
    return found[: mean.size], found[mean.size :]


def negative_elbo(mean: Array, deviation: Array, deltas: Array) -> Loss:
    """KL(q, prior) - sum E_q log sigmoid(w . delta), q = N(m, diag(s^2)): never less than minus the
    log evidence. As a function of (m, s) [2d]: value, gradient [2d] and Hessian [2d, 2d].

    The expectation is Gauss-Hermite quadrature over z = mu + sd x, mu = m . delta and
    sd = |s * delta|. It is concave in (mu, sd) and falls with sd, which is convex in s: so what is
    minimized is strictly convex where s > 0, and infinite elsewhere.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
    weights = weights / weights.sum()
    d, squares = mean.size, deltas**2

    def loss(point: Array) -> tuple[float, Array, Array]:
        m, s = point[:d], point[d:]
        if not (s > 0).all():
            return float("inf"), np.full(2 * d, np.nan), np.full((2 * d, 2 * d), np.nan)
        sd = np.sqrt(squares @ s**2 + TINY)
        z = (deltas @ m)[:, None] + sd[:, None] * nodes
        chance = expit(-z)  # minus the slope of -log sigmoid
        curved = chance * (1 - chance)
        # By mu and by v = sd^2, on which s acts without a root.
        by_mu, by_v = -chance @ weights, -chance @ (weights * nodes) / (2 * sd)
        mu_mu = curved @ weights
        mu_v = curved @ (weights * nodes) / (2 * sd)
        v_v = (curved @ (weights * nodes**2) - 2 * by_v) / (4 * sd**2)
        slopes = 2 * s * squares  # of v by s: [n, d]

        away, ratio = (m - mean) / deviation, s / deviation
        kl = (away @ away + ratio @ ratio - d) / 2 - np.log(ratio).sum()
        value = kl + float((np.logaddexp(0, -z) @ weights).sum())
        gradient = np.concatenate(
            [
                deltas.T @ by_mu + away / deviation,
                slopes.T @ by_v + s / deviation**2 - 1 / s,
            ]
        )
        means = deltas.T @ (mu_mu[:, None] * deltas)
        across = deltas.T @ (mu_v[:, None] * slopes)
        spreads = slopes.T @ (v_v[:, None] * slopes) + np.diag(2 * squares.T @ by_v + 1 / s**2)
        prior = np.diag(1 / deviation**2)
        return value, gradient, np.block([[means + prior, across], [across.T, spreads + prior]])

    return loss
