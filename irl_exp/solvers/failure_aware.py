"""Failure-aware IRL: a base reward, and a correction learnt where it fails.

After Patel et al. 2025 (arXiv 2510.06092). Failures are training pairs that the reward orders
wrongly or leaves nearly tied; a correction is trained on them alone, on clear errors first and then
on subtle ones. What the paper is known to say ends there; docs/solvers.md has what was chosen here.

The correction is linear in the last state of the base's body, as the base's output layer is, so
that the two fold into one.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy.linalg import null_space
from scipy.optimize import minimize_scalar
from torch import Tensor

from irl_exp.config import FailureAwareSolver
from irl_exp.metrics.identifiability import Array, minimum
from irl_exp.models.network_reward import NetworkReward
from irl_exp.models.reward_model import Reward
from irl_exp.modules.max_margin import PAIRWISE
from irl_exp.modules.training import CURVES_FILE, Curves
from irl_exp.solvers.convex import best, pair_accuracy
from irl_exp.solvers.linear import Features, differences
from irl_exp.solvers.problem import Problem


def solve(problem: Problem, solvers: Mapping[str, Callable[[Problem], Reward]]) -> NetworkReward:
    """The base's curves first, then a line for each round of correction."""
    config = problem.config
    assert isinstance(config, FailureAwareSolver)
    base = solvers[config.base.name](replace(problem, config=config.base))
    assert isinstance(base, NetworkReward)
    features = Features.read(base, problem.demonstrations, problem.device)
    curves = Curves(problem.folder)
    w, first = features.weights, next_step(problem.folder / CURVES_FILE)
    rounds = correct(features.train, features.validation, w, config)
    for step, found in enumerate(rounds, start=first):
        w = found.w
        curves.log_metrics(
            {
                "failures": found.failures,
                "penalty": found.penalty,
                "loss": found.loss,
                "held_out_loss": found.held_out_loss,
                "validation_pair_accuracy": pair_accuracy(features.validation, w),
            },
            step,
        )
    return features.export(w)


class Round(NamedTuple):
    """The reward's w [d] after a round; how many training pairs failed before it; the weight C of
    their loss that was taken, 0 where no correction was; the loss of these pairs, and of all those
    held out, after it."""

    w: Tensor
    failures: int
    penalty: float
    loss: float
    held_out_loss: float


def correct(
    train: Tensor, validation: Tensor, w: Tensor, config: FailureAwareSolver
) -> Iterator[Round]:
    """The rounds on pools [n, 2k, d], from the reward w [d] on; the last has the answer.

    The curriculum: a round's failures are the pairs with x = w . delta below a threshold that rises
    from -margin, clear errors alone, to margin, which takes in what is nearly tied; they are
    collected with the reward as it is then. A correction stays only where all held-out pairs lose
    less with it than without.
    """
    objective = PAIRWISE[config.objective]
    deltas, held_out = (differences(phi).flatten(0, 1) for phi in (train, validation))
    covariance = torch.cov(deltas.T)
    w = in_scale(w, deltas, objective)
    for threshold in np.linspace(-config.margin, config.margin, config.rounds + 1)[1:]:
        failures = deltas[deltas @ w < threshold]
        free = uncorrelated(w, covariance)
        x, rows = failures @ w, failures @ free
        tried = {0.0: w}
        for penalty in config.penalties if len(failures) else ():
            tried[penalty] = w + free @ correction(x, rows, objective, penalty)
        losses = {c: float(objective(held_out @ v).mean()) for c, v in tried.items()}
        taken = best(losses)
        w = tried[taken]
        loss = float(objective(failures @ w).mean()) if len(failures) else 0.0
        yield Round(w, len(failures), taken, loss, losses[taken])


def in_scale(w: Tensor, deltas: Tensor, objective: Callable[[Tensor], Tensor]) -> Tensor:
    """w times what makes the objective of pairs [n, d] least.

    Scale is not identified, and a base that was trained otherwise has one of its own. Were it too
    large, the loss would be that of a few pairs far off, and any correction that shrinks these
    would seem to help.
    """
    x = deltas @ w
    if (x >= 0).all():
        return w  # the larger the better, without end
    found = minimize_scalar(lambda log_size: float(objective(x * np.exp(log_size)).mean()))
    return w * float(np.exp(found.x))


def uncorrelated(w: Tensor, covariance: Tensor) -> Tensor:
    """An orthonormal basis [d, d - 1] of the rewards that do not go with w over pairs.

    These are the corrections there are. A failure is chosen for its low x = w . delta, so that any
    fit to failures alone would first of all turn w around, however right it is. A reward that is
    uncorrelated with x has no part in that choice (for Gaussian features it is independent of it).
    Nothing is lost: up to its scale, which is not identified, any reward that goes with w at all is
    w and such a correction.
    """
    return torch.from_numpy(null_space((covariance @ w).unsqueeze(0).numpy()))


def correction(
    x: Tensor, rows: Tensor, objective: Callable[[Tensor], Tensor], penalty: float
) -> Tensor:
    """The c [e] that minimizes 1/2 |c|^2 + C mean objective(x + rows . c), x [f], rows [f, e]."""

    def loss(c: Array) -> tuple[float, Array, Array]:
        at = (x + rows @ torch.from_numpy(c)).requires_grad_()
        values = objective(at)
        (slopes,) = torch.autograd.grad(values.sum(), at, create_graph=True)
        (curvatures,) = torch.autograd.grad(slopes.sum(), at)
        weight = penalty / len(x)
        gradient = rows.T @ slopes.detach()
        hessian = rows.T @ (curvatures.unsqueeze(1) * rows)
        return (
            weight * float(values.detach().sum()) + float(c @ c) / 2,
            weight * gradient.numpy() + c,
            weight * hessian.numpy() + np.eye(len(c)),
        )

    return torch.from_numpy(minimum(loss, np.zeros(rows.shape[1])))


def next_step(curves: Path) -> int:
    """Behind the last of the base's, where it left curves."""
    lines = curves.read_text().splitlines() if curves.is_file() else []
    return int(json.loads(lines[-1])["global_step"]) + 1 if lines else 0
