"""Rewards linear in frozen features: the reference's own body, and one weight a feature.

R(x, y) = w . phi(x, y), phi the body's state at the last real token, standardized over the training
pool. What can be said exactly about recovery (a unique maximum margin, a posterior, the set of
rewards that demonstrations do not reject) is said of these.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from irl_exp.models.reward_model import NetworkReward, output_layer
from irl_exp.solvers.problem import Problem


@dataclass(frozen=True)
class Features:
    """Standardized features of every prompt's pool, the aligned policy's k completions first.

    train, validation: float64 [n, 2k, d]; each feature has mean 0 and standard deviation 1 over the
    training pool. `scale` [d] are the deviations that were divided by.
    """

    train: Tensor
    validation: Tensor
    scale: Tensor
    reward: NetworkReward

    @classmethod
    def of(cls, problem: Problem) -> "Features":
        """Of the reference's own body, which nothing has trained on demonstrations."""
        return cls.under(problem.new_reward(), problem)

    @classmethod
    def under(cls, reward: NetworkReward, problem: Problem) -> "Features":
        """Of the body of a reward, below its output layer."""
        reward.network.eval().to(problem.device)
        width = 2 * problem.demonstrations.k

        def read(split: str) -> Tensor:
            pool = problem.demonstrations.split(split).pool()
            return reward.features(*pool).double().unflatten(0, (-1, width))

        train, validation = read("train"), read("validation")
        mean, scale = train.flatten(0, 1).mean(0), train.flatten(0, 1).std(0, correction=0)
        scale = torch.where(scale > 0, scale, 1.0)  # a constant feature says nothing, and stays 0
        return cls((train - mean) / scale, (validation - mean) / scale, scale, reward)

    @property
    def weights(self) -> Tensor:
        """The w [d] that the reward has now: the inverse of `export`."""
        return self._head.weight[0].detach().cpu().double() * self.scale

    @property
    def _head(self) -> nn.Linear:
        network = self.reward.network
        return output_layer(network, Path(network.name_or_path or ""))

    def export(self, w: Tensor) -> NetworkReward:
        """The reward with weights w [d] on standardized features, as a network like any other.

        The scale folds into the output layer; the mean would only add a constant to every score.
        """
        with torch.no_grad():
            self._head.weight.copy_((w / self.scale).unsqueeze(0))
        return self.reward


def differences(phi: Tensor) -> Tensor:
    """phi(aligned) - phi(reference) of all k^2 pairs of each prompt: [n, 2k, d] -> [n, k^2, d]."""
    k = phi.shape[1] // 2
    return (phi[:, :k].unsqueeze(2) - phi[:, k:].unsqueeze(1)).flatten(1, 2)


def matched(phi: Tensor) -> Tensor:
    """The same of k pairs that share no completion, which count as k observations: [n, k, d]."""
    k = phi.shape[1] // 2
    return phi[:, :k] - phi[:, k:]
