"""Maximum-entropy inverse RL: the linear reward under which the demonstrations are most likely.

Of all policies with a given mean reward the tilted expert has the most entropy relative to pi_ref,
and for it the likelihood of who wrote which completion is exact (modules/choice.py). On frozen
features that likelihood is concave: one maximum, found to rounding.
"""

from collections.abc import Callable
from itertools import combinations
from math import comb

import numpy as np
import torch
from torch import Tensor

from irl_exp.config import InputError, MaxEntropySolver
from irl_exp.metrics.identifiability import Array, Loss, Slopes, minimum
from irl_exp.models.network_reward import NetworkReward
from irl_exp.modules.choice import log_choice
from irl_exp.solvers.linear import Features
from irl_exp.solvers.problem import Problem

# Up to how many sets of k of a pool each gets its probability, which is some four times as fast as
# the recursion: up to k = 6.
SETS = 1000
# Points at which the likelihood is computed at once; more would not fit a processor's cache.
POINTS = 8


def solve(problem: Problem) -> NetworkReward:
    """The maximum of the likelihood times the prior N(0, prior_scale^2 I) on w."""
    config = problem.config
    assert isinstance(config, MaxEntropySolver)
    features = Features.of(problem)
    return features.export(torch.from_numpy(most_likely(features.train, config.prior_scale)))


def most_likely(phi: Tensor, prior_scale: float) -> Array:
    """w [d], the weights of R/beta, from pools [n, 2k, d] with the aligned completions first.

    Raises InputError where the prior is so wide that no maximum can be found.
    """
    d = phi.shape[-1]
    try:
        return minimum(choice_loss(phi, np.zeros(d), np.eye(d) / prior_scale**2), np.zeros(d))
    except ValueError as error:
        raise InputError(
            f"prior_scale={prior_scale}: the likelihood has no maximum that can be found; "
            "expected a smaller scale"
        ) from error


def choice_loss(phi: Tensor, mean: Array, precision: Array) -> Loss:
    """-log P(who wrote which | pools [n, 2k, d], w) + (w - mean) . precision (w - mean) / 2.

    As a function of w that gives its value, gradient [d] and Hessian [d, d], in float64. Pools of
    two completions make it Bradley and Terry's. The precision [d, d] keeps it strictly convex.
    """
    rows = phi.flatten(0, 1)
    likelihood = _likelihood(phi.shape[1] // 2)

    def loss(w: Array) -> tuple[float, Array, Array]:
        log_likelihood, slope, curvature = likelihood(phi @ torch.from_numpy(w), True)
        gradient = -(rows.T @ slope.flatten())
        hessian = -(rows.T @ (curvature @ phi).flatten(0, 1))
        away = precision @ (w - mean)
        return (
            -float(log_likelihood.sum()) + float((w - mean) @ away) / 2,
            gradient.numpy() + away,
            hessian.numpy() + precision,
        )

    return loss


def choice_slopes(phi: Tensor, mean: Array, precision: Array) -> Slopes:
    """Values [m] and gradients [m, d] of `choice_loss` at m points [m, d]."""
    n, width, _ = phi.shape
    rows = phi.flatten(0, 1)
    likelihood = _likelihood(width // 2)

    def slopes(points: Array) -> tuple[Array, Array]:
        values, gradients = [np.empty(0)], [np.empty((0, points.shape[1]))]
        for start in range(0, len(points), POINTS):
            some = points[start : start + POINTS]
            scores = rows @ torch.from_numpy(some.T.copy())  # [n * 2k, m]
            scores = scores.unflatten(0, (n, width)).transpose(1, 2)
            log_likelihood, slope, _ = likelihood(scores.flatten(0, 1), False)
            slope = slope.unflatten(0, (n, -1)).transpose(1, 2).flatten(0, 1)
            away = (some - mean) @ precision
            prior = np.einsum("md,md->m", some - mean, away) / 2
            values.append(prior - log_likelihood.unflatten(0, (n, -1)).sum(0).numpy())
            gradients.append(away - (slope.T @ rows).numpy())
        return np.concatenate(values), np.concatenate(gradients)

    return slopes


# scores [n, 2k], whether the curvature is wanted -> log_choice(scores) [n], gradient [n, 2k],
# Hessian [n, 2k, 2k] (where it is not, empty).
Likelihood = Callable[[Tensor, bool], tuple[Tensor, Tensor, Tensor]]


def _likelihood(k: int) -> Likelihood:
    return _by_sets(k) if comb(2 * k, k) <= SETS else _by_recursion


def _by_sets(k: int) -> Likelihood:
    """By the probability of each set of k: the gradient and Hessian of a log-normalizer are mean
    and covariance of who is in the set."""
    members = [[float(i in s) for i in range(2 * k)] for s in combinations(range(2 * k), k)]
    sets = torch.tensor(members, dtype=torch.float64)  # the first of them is the expert's
    pairs = (sets.unsqueeze(2) * sets.unsqueeze(1)).flatten(1)

    def likelihood(scores: Tensor, curved: bool) -> tuple[Tensor, Tensor, Tensor]:
        logs = scores @ sets.T
        top = logs.amax(1, keepdim=True)
        shares = (logs - top).exp_()
        total = shares.sum(1, keepdim=True)
        shares /= total
        mean = shares @ sets
        curvature = torch.zeros(0)
        if curved:
            outer = mean.unsqueeze(2) * mean.unsqueeze(1)
            curvature = outer - (shares @ pairs).view_as(outer)
        return logs[:, 0] - (top + total.log())[:, 0], sets[0] - mean, curvature

    return likelihood


def _by_recursion(scores: Tensor, curved: bool) -> tuple[Tensor, Tensor, Tensor]:
    """By autograd through log_choice, which needs no list of sets."""
    scores = scores.detach().requires_grad_()
    log_likelihood = log_choice(scores)
    (slope,) = torch.autograd.grad(log_likelihood.sum(), scores, create_graph=curved)
    curvature = torch.zeros(0)
    if curved:
        # Pools do not touch each other, so that one column serves all of them: [2k, n, 2k].
        columns = torch.eye(scores.shape[1], dtype=scores.dtype).unsqueeze(1)
        columns = columns.expand(-1, len(scores), -1)
        (curvature,) = torch.autograd.grad(slope, scores, columns, is_grads_batched=True)
        curvature = curvature.transpose(0, 1)
    return log_likelihood.detach(), slope.detach(), curvature


def roughness(phi: Tensor, hessian: Array) -> float:
    """M of metrics/identifiability.py for `choice_loss` on pools [n, 2k, d], at this Hessian.

    Along u, minus a pool's log-likelihood has the derivatives of a cumulant-generating function: of
    the sum of u . phi over a random set of k completions. A third central moment is at most the
    range times the variance, and that sum's range is the k largest u . phi less the k smallest,
    at most sum |u . (phi - mean)| <= sqrt(2k) |centred pool @ u| <= sqrt(2k) |pool|_{1/H} |u|_H.
    """
    centred = phi - phi.mean(1, keepdim=True)
    factor = torch.linalg.cholesky(torch.from_numpy(hessian))
    whitened = torch.linalg.solve_triangular(factor, centred.flatten(0, 1).T, upper=False).T
    pools = whitened.unflatten(0, centred.shape[:2])
    largest = torch.linalg.eigvalsh(pools @ pools.mT).amax()
    return float((phi.shape[1] * largest.clamp(min=0.0)).sqrt())
