"""Maximum margin against policies instead of texts: the algorithm that the paper's text describes.

Joselowitz et al. 2025 (arXiv 2410.12491), Algorithm 1, after Ng and Russell 2000 (section 5) and
Ratliff et al. 2006: fit the margin between the expert and the policies found so far, find the
policy that the new reward induces, and so on. Their released code never renews the policy. Here it
is the reference, its stored completions weighted by exp(R/beta): no RLHF run in any round.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from irl_exp.config import PlanningSolver
from irl_exp.models.network_reward import NetworkReward
from irl_exp.modules.max_margin import hinge
from irl_exp.modules.training import Curves
from irl_exp.solvers.convex import (
    best,
    effective_sample_size,
    held_out_losses,
    maximum_margin,
    pair_accuracy,
    response,
)
from irl_exp.solvers.linear import Features, differences
from irl_exp.solvers.problem import Problem


def solve(problem: Problem) -> NetworkReward:
    """C is that of the first round, where the expert meets the reference: the svm's."""
    config = problem.config
    assert isinstance(config, PlanningSolver)
    features, curves = Features.of(problem), Curves(problem.folder)
    penalty = best(held_out_losses(features.train, config.penalties, config.folds))
    for i, found in enumerate(plan(features.train, penalty, problem.kl_coef, config.rounds)):
        curves.log_metrics(
            {
                "penalty": penalty,
                "loss": found.loss,
                "lead": found.lead,
                "effective_sample_size": effective_sample_size(found.policy),
                "validation_pair_accuracy": pair_accuracy(features.validation, found.w),
            },
            i,
        )
    return features.export(found.w)


class Round(NamedTuple):
    """w [d]; its margin loss against the policies before; the policy that it induces, as weights
    [n, k] of the reference's completions; and the expert's lead over that one: how much more it
    earns, in standard deviations of R over the reference."""

    w: Tensor
    loss: float
    policy: Tensor
    lead: float


def plan(phi: Tensor, penalty: float, kl_coef: float, rounds: int) -> Iterator[Round]:
    """The rounds on phi [n, 2k, d]; the last has the answer.

    The expert is set against the mean of all policies so far, the reference first. Against the
    latest alone there is nothing left to separate once it is as good as the expert, and the next w
    is noise. For the same reason it ends with the first R whose policy earns as much as the expert.
    """
    k = phi.shape[1] // 2
    aligned, reference = phi[:, :k], phi[:, k:]
    total = torch.full(reference.shape[:2], 1 / k, dtype=phi.dtype)
    for i in range(rounds):
        opponent = total / (i + 1)
        w = maximum_margin(phi, penalty, opponent)
        scores = reference @ w
        policy = response(scores, kl_coef)
        earned = (aligned @ w).mean() - (policy * scores).sum(1).mean()
        losses = hinge(differences(phi) @ w).unflatten(1, (k, k)).mean(1)  # [n, k], of opponents
        lead = earned / scores.std(correction=0).clamp_min(torch.finfo(phi.dtype).tiny)
        yield Round(w, float((losses * opponent).sum(1).mean()), policy, float(lead))
        if lead <= 0:
            return
        total = total + policy
