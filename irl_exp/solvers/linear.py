"""Rewards linear in frozen features: the reference's own body, and one weight a feature.

R(x, y) = w . phi(x, y), phi the body's state at the last real token, standardized over the training
pool. What can be said exactly about recovery (a unique maximum margin, a posterior, the set of
rewards that demonstrations do not reject) is said of these.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from irl_exp.data.pairs import Demonstrations
from irl_exp.models.network_reward import NetworkReward, output_layer
from irl_exp.solvers.problem import Problem


@dataclass(frozen=True)
class Features:
    """Standardized features: each has mean 0 and standard deviation 1 over the training pool.

    `train`: float64 [n, 2k, d], of every prompt's pool, the aligned policy's k completions first.
    `mean` and `scale` [d] are what was subtracted and what was divided by.
    """

    reward: NetworkReward
    demonstrations: Demonstrations
    train: Tensor
    mean: Tensor
    scale: Tensor

    @classmethod
    def of(cls, problem: Problem) -> "Features":
        """Of the reference's own body, which nothing has trained on demonstrations."""
        return cls.read(problem.new_head(), problem.demonstrations, problem.device)

    @classmethod
    def read(cls, reward: NetworkReward, demonstrations: Demonstrations, device: str) -> "Features":
        """By the body of `reward`; what its output layer says does not matter."""
        reward.network.eval().to(device)  # type: ignore[arg-type]
        train = reward.features(*demonstrations.split("train").pool()).double()
        mean, scale = train.mean(0), train.std(0, correction=0)
        scale = torch.where(scale > 0, scale, 1.0)  # a constant feature says nothing, and stays 0
        train = ((train - mean) / scale).unflatten(0, (-1, 2 * demonstrations.k))
        return cls(reward, demonstrations, train, mean, scale)

    def texts(self, prompts: Sequence[str], completions: Sequence[str]) -> Tensor:
        """Of any texts, float64 [n, d]."""
        return (self.reward.features(prompts, completions).double() - self.mean) / self.scale

    def pool(self, split: str) -> Tensor:
        """Of a split's pools, as `train`."""
        pool = self.demonstrations.split(split).pool()
        return self.texts(*pool).unflatten(0, (-1, 2 * self.demonstrations.k))

    @cached_property
    def validation(self) -> Tensor:
        return self.pool("validation")

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
