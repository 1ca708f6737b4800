"""Bayesian inverse RL: not one reward but all, each as probable as the demonstrations make it.

The likelihood of solvers/choice.py times a Gaussian prior on w; the posterior is Gaussian too, with
the curvature at its maximum (Laplace's approximation). It is updated round by round, each on
prompts of its own, so that one can watch what is learned: every posterior is the next prior
(Bou et al. 2025, arXiv 2510.06096). Theirs is a mean-field posterior of matched pairs, without
covariances, and can be had for comparison (solvers/mean_field.py).
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from scipy.optimize import minimize_scalar
from scipy.special import expit
from torch import Tensor

from irl_exp.config import BayesianSolver
from irl_exp.metrics.identifiability import Array, minimum
from irl_exp.metrics.uncertainty import calibration_error, entropies
from irl_exp.models.network_reward import NetworkReward
from irl_exp.modules.training import CURVES_FILE
from irl_exp.solvers.choice import choice_loss
from irl_exp.solvers.linear import Features, matched
from irl_exp.solvers.mean_field import nearest
from irl_exp.solvers.problem import Problem

POSTERIOR_FILE = "posterior.safetensors"
# Between which prior scales the evidence is maximized. Features have unit variance: with scale 1
# and d features, rewards are a priori sqrt(d) nats wide.
PRIOR_SCALES = (1e-3, 1e3)


@dataclass(frozen=True)
class Gaussian:
    """A belief about the weights w of R/beta: mean [d], covariance [d, d], float64."""

    mean: Array
    covariance: Array

    @classmethod
    def prior(cls, d: int, scale: float) -> "Gaussian":
        return cls(np.zeros(d), scale**2 * np.eye(d))

    def of(self, deltas: Array) -> tuple[Array, Array]:
        """Mean and variance of w . delta, [n] each, for deltas [n, d]."""
        return deltas @ self.mean, np.einsum("nd,de,ne->n", deltas, self.covariance, deltas)

    def pair_probability(self, deltas: Array) -> Array:
        """P(the first of two completions is the expert's) [n], one being from each policy.

        The mean of sigmoid(w . delta), by the probit approximation (MacKay 1992), good to 0.02.
        """
        mean, variance = self.of(deltas)
        chance: Array = expit(mean / np.sqrt(1 + np.pi / 8 * variance))
        return chance

    def save(self, folder: Path, scale: Tensor) -> None:
        """`posterior.safetensors`: mean and covariance on standardized features, and `scale` [d].

        On the body's own features the weights are w / scale.
        """
        tensors = {"mean": self.mean, "covariance": self.covariance, "scale": scale.numpy()}
        save_file(
            {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()},
            folder / POSTERIOR_FILE,
        )

    @classmethod
    def load(cls, folder: Path) -> tuple["Gaussian", Array]:
        """(posterior, scale [d]) as saved."""
        tensors = load_file(folder / POSTERIOR_FILE)
        return cls(tensors["mean"], tensors["covariance"]), tensors["scale"]


def solve(problem: Problem) -> NetworkReward:
    """The posterior's mean as a reward; the posterior beside it, and a curve over the rounds."""
    config = problem.config
    assert isinstance(config, BayesianSolver)
    features = Features.of(problem)
    scale = config.prior_scale or likely_scale(features.train)
    prior = Gaussian.prior(features.train.shape[-1], scale)
    order = torch.randperm(len(features.train), generator=problem.generator("rounds"))
    held_out = matched(features.validation).flatten(0, 1).numpy()
    posterior = prior
    with (problem.folder / CURVES_FILE).open("w") as curves:
        beliefs = rounds(prior, features.train[order], config.rounds, FAMILIES[config.family])
        for number, posterior in enumerate(beliefs, start=1):
            facts = {"global_step": number, "prior_scale": scale, **doubt(posterior, held_out)}
            curves.write(json.dumps(facts) + "\n")
    posterior.save(problem.folder, features.scale)
    return features.export(torch.from_numpy(posterior.mean))


def update(prior: Gaussian, phi: Tensor) -> Gaussian:
    """The posterior after pools [n, 2k, d] that are independent, the aligned completions first.

    Matched pairs, as pools of two, are independent as well and leave it somewhat wider. All k^2
    pairs are not: they would count every completion k times.
    """
    loss = choice_loss(phi, prior.mean, _inverse(prior.covariance))
    mean = minimum(loss, prior.mean)
    return Gaussian(mean, _inverse(loss(mean)[2]))


def update_mean_field(prior: Gaussian, phi: Tensor) -> Gaussian:
    """The same by independent weights, from matched pairs; of the prior, variances alone count."""
    deltas = matched(phi).flatten(0, 1).numpy()
    mean, deviation = nearest(prior.mean, np.sqrt(np.diag(prior.covariance)), deltas)
    return Gaussian(mean, np.diag(deviation**2))


Update = Callable[[Gaussian, Tensor], Gaussian]
FAMILIES: dict[str, Update] = {"laplace": update, "mean_field": update_mean_field}


def rounds(prior: Gaussian, phi: Tensor, count: int, update: Update = update) -> Iterator[Gaussian]:
    """The posterior after each of `count` disjoint runs of pools, as even as can be."""
    for fold in phi.tensor_split(count):
        if len(fold):
            prior = update(prior, fold)
            yield prior


def likely_scale(phi: Tensor) -> float:
    """The scale of the prior under which the demonstrations are most likely (the evidence)."""
    found = minimize_scalar(
        lambda log_scale: -log_evidence(phi, float(np.exp(log_scale))),
        bounds=np.log(PRIOR_SCALES),
        method="bounded",
        options={"xatol": 1e-2},
    )
    return float(np.exp(found.x))


def log_evidence(phi: Tensor, scale: float) -> float:
    """log P(who wrote which | pools [n, 2k, d], prior N(0, scale^2 I)), by Laplace."""
    d = phi.shape[-1]
    loss = choice_loss(phi, np.zeros(d), np.eye(d) / scale**2)
    value, _, hessian = loss(minimum(loss, np.zeros(d)))
    return -value - d * np.log(scale) - float(np.linalg.slogdet(hessian)[1]) / 2


def doubt(posterior: Gaussian, deltas: Array) -> dict[str, float]:
    """How sure a posterior is, and whether rightly so, on held-out matched pairs [n, d].

    Read in both orders: in one alone the aligned completion always stands first, and a forecaster
    who always says so would be perfect.
    """
    probability = posterior.pair_probability(deltas)
    both = np.concatenate([probability, 1 - probability])
    came = np.repeat([1, 0], len(deltas))
    aleatoric, epistemic = entropies(*posterior.of(deltas))
    return {
        "validation_calibration_error": calibration_error(both, came),
        "validation_aleatoric_entropy": float(aleatoric.mean()),
        "validation_epistemic_entropy": float(epistemic.mean()),
        "posterior_log_volume": float(np.linalg.slogdet(posterior.covariance)[1]) / 2,
    }


def _inverse(matrix: Array) -> Array:
    inverse: Array = np.asarray(np.linalg.inv(matrix), dtype=np.float64)
    return (inverse + inverse.T) / 2
