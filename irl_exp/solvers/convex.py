"""Two classics on frozen features: the exact maximum margin, and matching feature expectations.

`svm`: the soft margin of Cortes and Vapnik 1995, on differences of features. The gradient solver
with objective=hinge seeks the same margin with a network; here it is unique, and found.
`projection`: Abbeel and Ng 2004, Apprenticeship learning via inverse reinforcement learning,
section 3.1, where an episode is one step and a policy chooses among completions that are stored.
"""

import logging
import warnings
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.svm import LinearSVC
from torch import Tensor

from irl_exp.config import InputError, ProjectionSolver, SvmSolver
from irl_exp.models.network_reward import NetworkReward
from irl_exp.modules.max_margin import hinge
from irl_exp.modules.training import Curves
from irl_exp.solvers.linear import Features, differences
from irl_exp.solvers.problem import Problem

log = logging.getLogger(__name__)

# --- the maximum margin -------------------------------------------------------------------------

# Where liblinear stops: at slopes of its dual below this, or after so many passes.
TOLERANCE = 1e-5
PASSES = 1_000_000


def svm(problem: Problem) -> NetworkReward:
    """The exact maximum margin over all k^2 pairs, C by cross-validation over training prompts."""
    config = problem.config
    assert isinstance(config, SvmSolver)
    features, curves = Features.of(problem), Curves(problem.folder)
    losses = held_out_losses(features.train, config.penalties, config.folds)
    for i, (penalty, loss) in enumerate(losses.items()):
        curves.log_metrics({"penalty": penalty, "held_out_loss": loss}, i)
    penalty = best(losses)
    w = maximum_margin(features.train, penalty)
    curves.log_metrics(
        {
            "penalty": penalty,
            "loss": margin_loss(features.train, w),
            "pair_accuracy": pair_accuracy(features.train, w),
            "validation_pair_accuracy": pair_accuracy(features.validation, w),
        },
        len(losses),
    )
    return features.export(w)


def maximum_margin(phi: Tensor, penalty: float, policy: Tensor | None = None) -> Tensor:
    """The w [d] that minimizes 1/2 |w|^2 + C mean_prompts mean_pairs max(0, 1 - w . dphi).

    dphi = phi(aligned) - phi(reference), of all k^2 pairs of a prompt in phi [n, 2k, d]. Each
    prompt counts once, however many pairs it has, and C (`penalty`) means the same for any n.
    `policy` [n, k] weighs a prompt's reference completions (rows sum to 1); without it, alike.
    No intercept: a constant has no part in a difference.
    """
    n, k = len(phi), phi.shape[1] // 2
    policy = torch.full((n, k), 1 / k, dtype=phi.dtype) if policy is None else policy
    return margin_against(phi[:, :k], phi[:, k:], policy, penalty)


def margin_against(aligned: Tensor, others: Tensor, policy: Tensor, penalty: float) -> Tensor:
    """The same of aligned [n, k, d] against any completions, others [n, m, d] and policy [n, m]."""
    n, k, m = len(aligned), aligned.shape[1], others.shape[1]
    dphi = (aligned.unsqueeze(2) - others.unsqueeze(1)).flatten(0, 2)
    # A classifier wants two classes: every other pair is told the other way round.
    sign = torch.ones(len(dphi), dtype=dphi.dtype)
    sign[::2] = -1
    machine = LinearSVC(
        loss="hinge",
        dual=True,
        C=penalty / n,
        fit_intercept=False,
        tol=TOLERANCE,
        max_iter=PASSES,
        random_state=0,  # the order in which pairs are visited; the minimum has no part in it
    )
    with warnings.catch_warnings(record=True) as raised:
        warnings.simplefilter("always", ConvergenceWarning)
        machine.fit(
            (dphi * sign.unsqueeze(1)).numpy(),
            sign.numpy(),
            sample_weight=(policy / k).unsqueeze(1).expand(n, k, m).flatten().numpy(),
        )
    if raised:
        log.warning("maximum margin at C = %g: stopped after %d passes", penalty, PASSES)
    return torch.from_numpy(machine.coef_[0])


def margin_loss(phi: Tensor, w: Tensor) -> float:
    return float(hinge(differences(phi) @ w).mean())


def pair_accuracy(phi: Tensor, w: Tensor) -> float:
    return float((differences(phi) @ w > 0).double().mean())


def held_out_losses(phi: Tensor, penalties: Sequence[float], folds: int) -> dict[float, float]:
    """Penalty -> margin loss of prompts that were held out, mean over `folds` parts of them.

    All pairs of a prompt are on one side. Raises InputError for fewer prompts than folds.
    """
    if len(phi) < folds:
        raise InputError(
            f"solver.folds={folds}: there are {len(phi)} training prompts; expected no more folds"
        )
    fold = torch.arange(len(phi)) % folds

    def loss(penalty: float, held_out: int) -> float:
        w = maximum_margin(phi[fold != held_out], penalty)
        return margin_loss(phi[fold == held_out], w)

    return {c: sum(loss(c, part) for part in range(folds)) / folds for c in sorted(penalties)}


def best(losses: dict[float, float]) -> float:
    """The penalty of the least loss; of several, the smallest."""
    return min(losses, key=lambda penalty: (losses[penalty], penalty))


# --- matching feature expectations --------------------------------------------------------------


def projection(problem: Problem) -> NetworkReward:
    """The direction that is left between the expert and the nearest mixture of policies."""
    config = problem.config
    assert isinstance(config, ProjectionSolver)
    features, curves = Features.of(problem), Curves(problem.folder)
    for i, found in enumerate(
        project(features.train, problem.kl_coef, config.tolerance, config.rounds)
    ):
        curves.log_metrics(
            {
                "margin": float(found.w.norm()),
                "effective_sample_size": found.effective_sample_size,
                "validation_pair_accuracy": pair_accuracy(features.validation, found.w),
            },
            i,
        )
    return features.export(found.w)


class Projection(NamedTuple):
    """A round: w = mu_E - mu_bar [d], whose length is the margin; of the policy that answers it,
    the mean over prompts of 1 / sum of squared weights, in completions."""

    w: Tensor
    effective_sample_size: float


def project(phi: Tensor, kl_coef: float, tolerance: float, rounds: int) -> Iterator[Projection]:
    """The rounds of the projection method on phi [n, 2k, d], the last with its answer.

    Feature expectations are means over prompts less the reference's. Where the paper finds a best
    policy for w, this takes what RLHF aims at with R = w . phi (see `response`): the best policy
    that is no further from the reference than the expert is. It ends when the margin is below
    `tolerance`, or when no policy can bring it closer by as much; then the expert lies outside of
    what re-weighting reaches.
    """
    k = phi.shape[1] // 2
    aligned, reference = phi[:, :k], phi[:, k:]
    centre = reference.mean(1, keepdim=True)
    expert = (aligned - centre).mean((0, 1))
    mixture = torch.zeros_like(expert)  # round 0: the reference itself
    for _ in range(rounds):
        w = expert - mixture
        policy = response(reference @ w, kl_coef)
        yield Projection(w, effective_sample_size(policy))
        answer = ((reference - centre) * policy.unsqueeze(2)).sum(1).mean(0)
        step = answer - mixture
        if w.norm() < tolerance or step @ w < tolerance * w.norm():
            return
        # At most all the way: beyond the answer lies no mixture of policies.
        mixture = mixture + (step @ w / (step @ step)).clamp(0, 1) * step


def response(scores: Tensor, kl_coef: float) -> Tensor:
    """Weights [n, k] of the reference's completions, scored [n, k], under pi_ref exp(R/beta)/Z.

    R has standard deviation 1 over them, as any reward that drives RLHF: so every reward is given
    a policy at about the same distance, and its length plays no part.
    """
    spread = scores.std(correction=0).clamp_min(torch.finfo(scores.dtype).tiny)
    return (scores / spread / kl_coef).softmax(1)


def effective_sample_size(policy: Tensor) -> float:
    return float((1 / policy.square().sum(1)).mean())
