"""Maximum-entropy inverse RL: the linear reward under which the demonstrations are most likely.

Of all policies with a given mean reward the tilted expert has the most entropy relative to pi_ref,
and for it the likelihood of who wrote which completion is exact (modules/choice.py). On frozen
features that likelihood is concave: one maximum, found to rounding.
"""

import numpy as np
import torch
from torch import Tensor

from irl_exp.config import MaxEntropySolver
from irl_exp.metrics.identifiability import Array, Loss, minimum
from irl_exp.models.reward_model import NetworkReward
from irl_exp.modules.choice import log_choice
from irl_exp.solvers.linear import Features
from irl_exp.solvers.problem import Problem


def solve(problem: Problem) -> NetworkReward:
    """The maximum of the likelihood times the prior N(0, prior_scale^2 I) on w."""
    config = problem.config
    assert isinstance(config, MaxEntropySolver)
    features = Features.of(problem)
    return features.export(torch.from_numpy(most_likely(features.train, config.prior_scale)))


def most_likely(phi: Tensor, prior_scale: float) -> Array:
    """w [d], the weights of R/beta, from pools [n, 2k, d] with the aligned completions first."""
    d = phi.shape[-1]
    return minimum(choice_loss(phi, np.zeros(d), np.eye(d) / prior_scale**2), np.zeros(d))


def choice_loss(phi: Tensor, mean: Array, precision: Array) -> Loss:
    """-log P(who wrote which | pools [n, 2k, d], w) + (w - mean) . precision (w - mean) / 2.

    As a function of w that gives its value, gradient [d] and Hessian [d, d], in float64. Pools of
    two completions make it Bradley and Terry's. The precision [d, d] keeps it strictly convex.
    """
    rows = phi.flatten(0, 1)
    columns = torch.eye(phi.shape[1], dtype=phi.dtype).unsqueeze(1).expand(-1, len(phi), -1)

    def loss(w: Array) -> tuple[float, Array, Array]:
        scores = (phi @ torch.from_numpy(w)).requires_grad_()
        log_likelihood = log_choice(scores).sum()
        (slope,) = torch.autograd.grad(log_likelihood, scores, create_graph=True)
        # [2k, n, 2k]: pools do not touch each other, so that one column serves all of them.
        (curvature,) = torch.autograd.grad(slope, scores, columns, is_grads_batched=True)
        gradient = -(rows.T @ slope.detach().flatten())
        hessian = -(rows.T @ (curvature.transpose(0, 1) @ phi).flatten(0, 1))
        away = precision @ (w - mean)
        return (
            -float(log_likelihood.detach()) + float((w - mean) @ away) / 2,
            gradient.numpy() + away,
            hessian.numpy() + precision,
        )

    return loss


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
