"""Maximum margin against policies instead of texts: the algorithm that the paper's text describes.

Joselowitz et al. 2025 (arXiv 2410.12491), Algorithm 1, after Ng and Russell 2000 (section 5) and
Ratliff et al. 2006: fit the margin between the expert and the policies found so far, find the
policy that the new reward induces, and so on. Their released code never renews the policy. Here it
is the reference, its stored completions weighted by exp(R/beta): no RLHF run in any round; or, if
asked for, what RLHF makes of the reference in each.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from irl_exp.config import PlanningSolver, PPOConfig
from irl_exp.models import policies
from irl_exp.models.network_reward import NetworkReward
from irl_exp.models.reward_model import NormalizedReward, Normalizer
from irl_exp.modules import ppo
from irl_exp.modules.max_margin import hinge
from irl_exp.modules.training import WORKING_FOLDER, Curves
from irl_exp.solvers.convex import (
    best,
    effective_sample_size,
    held_out_losses,
    margin_against,
    pair_accuracy,
    response,
)
from irl_exp.solvers.linear import Features
from irl_exp.solvers.problem import Problem

COMPLETIONS_FILE = "completions.json"


def solve(problem: Problem) -> NetworkReward:
    """C is that of the first round, where the expert meets the reference: the svm's."""
    config = problem.config
    assert isinstance(config, PlanningSolver)
    features, curves = Features.of(problem), Curves(problem.folder)
    penalty = best(held_out_losses(features.train, config.penalties, config.folds))
    answer = (
        reweighted(features.train, problem.kl_coef)
        if config.rlhf is None
        else trained(problem, features)
    )
    for i, found in enumerate(plan(features.train, penalty, answer, config.rounds)):
        curves.log_metrics(
            {
                "penalty": penalty,
                "loss": found.loss,
                "lead": found.lead,
                "effective_sample_size": effective_sample_size(found.policy.weights),
                "validation_pair_accuracy": pair_accuracy(features.validation, found.w),
            },
            i,
        )
    return features.export(found.w)


class Policy(NamedTuple):
    """Completions of every prompt by their features [n, m, d], and how probable each is: weights
    [n, m], whose rows sum to 1."""

    phi: Tensor
    weights: Tensor


# w [d] -> the policy that R = w . phi induces.
Answer = Callable[[Tensor], Policy]


class Round(NamedTuple):
    """w [d]; its margin loss against the policies before; the policy that it induces; and the
    expert's lead over that one: how much more it earns, in standard deviations of R over the
    reference."""

    w: Tensor
    loss: float
    policy: Policy
    lead: float


def plan(phi: Tensor, penalty: float, answer: Answer, rounds: int) -> Iterator[Round]:
    """The rounds on phi [n, 2k, d]; the last has the answer.

    The expert is set against the mean of all policies so far, the reference first. Against the
    latest alone there is nothing left to separate once it is as good as the expert, and the next w
    is noise. For the same reason it ends with the first R whose policy earns as much as the expert.
    """
    k = phi.shape[1] // 2
    aligned, reference = phi[:, :k], phi[:, k:]
    met = Policy(reference, torch.full(reference.shape[:2], 1 / k, dtype=phi.dtype))
    for i in range(rounds):
        w = margin_against(aligned, met.phi, met.weights, penalty)
        policy = answer(w)
        earned = (aligned @ w).mean() - (policy.weights * (policy.phi @ w)).sum(1).mean()
        x = (aligned @ w).unsqueeze(2) - (met.phi @ w).unsqueeze(1)
        loss = (hinge(x).mean(1) * met.weights).sum(1).mean()
        spread = (reference @ w).std(correction=0).clamp_min(torch.finfo(phi.dtype).tiny)
        lead = float(earned / spread)
        yield Round(w, float(loss), policy, lead)
        if lead <= 0:
            return
        met = mixture(met, i + 1, policy)


def mixture(met: Policy, count: int, other: Policy) -> Policy:
    """The mean of `count` policies, whose mean is `met`, and one more."""
    old, new = met.weights * count / (count + 1), other.weights / (count + 1)
    if torch.equal(other.phi, met.phi):
        return Policy(met.phi, old + new)  # of the same completions
    return Policy(torch.cat([met.phi, other.phi], 1), torch.cat([old, new], 1))


# --- what a reward induces ------------------------------------------------------------------------


def reweighted(phi: Tensor, kl_coef: float) -> Answer:
    """The reference's completions in phi [n, 2k, d], weighted as RLHF would have it."""
    reference = phi[:, phi.shape[1] // 2 :]
    return lambda w: Policy(reference, response(reference @ w, kl_coef))


def trained(problem: Problem, features: Features) -> Answer:
    """What PPO makes of the reference with R = w . phi, on the demonstrations' training prompts:
    its own completions, alike. A round that is done is not done again after a kill."""
    config = problem.config
    assert isinstance(config, PlanningSolver) and isinstance(config.rlhf, PPOConfig)
    rlhf, train = config.rlhf, problem.demonstrations.split("train")
    prompts = [prompt for prompt in train.prompts for _ in range(train.k)]
    rounds = iter(range(config.rounds))

    def answer(w: Tensor) -> Policy:
        name = f"round-{next(rounds)}"
        folder = problem.folder / WORKING_FOLDER / name
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / COMPLETIONS_FILE).is_file():
            reward = features.export(w)
            unit = Normalizer.fit(reward.score(*train.reference_texts()))
            ppo.align(
                rlhf,
                problem.reference,
                NormalizedReward(reward, unit),
                train.prompts,
                problem.max_new_tokens,
                order=problem.generator(f"{name} prompts"),
                generator=_on_device(problem, f"{name} ppo"),
                trainer=problem.trainer,
                folder=folder,
            )
            _write(train.prompts, train.k, problem, folder, _on_device(problem, f"{name} draws"))
        texts = [
            text for row in json.loads((folder / COMPLETIONS_FILE).read_text()) for text in row
        ]
        phi = features.texts(prompts, texts).unflatten(0, (-1, train.k))
        return Policy(phi, torch.full(phi.shape[:2], 1 / train.k, dtype=phi.dtype))

    return answer


def _write(
    prompts: list[str], k: int, problem: Problem, folder: Path, generator: torch.Generator
) -> None:
    """k completions of each prompt by the policy in the folder, beside it."""
    size = problem.trainer.sample_batch_size
    policy = policies.load_policy(folder, problem.max_new_tokens, size, problem.device)
    partial = folder / f"{COMPLETIONS_FILE}.part"
    partial.write_text(json.dumps(policy.sample(prompts, k, generator).completions))
    partial.replace(folder / COMPLETIONS_FILE)


def _on_device(problem: Problem, purpose: str) -> torch.Generator:
    seed = problem.generator(purpose).initial_seed()
    return torch.Generator(problem.device).manual_seed(seed)
