"""Inverse RL by gradient: what the aligned policy writes earns more than the reference's.

By a margin between two completions of a prompt, or by the likelihood of all of them together.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.nn import functional as F

from irl_exp import processes
from irl_exp.models.network_reward import NetworkReward
from irl_exp.modules.choice import log_choice
from irl_exp.modules.training import by_recipe

# --- pairwise objectives: x = R(preferred) - R(other), any shape -> loss of each pair ------------


def asymmetric(x: Tensor) -> Tensor:
    """-x if x > 0, -2x if x < 0 (Joselowitz et al. 2025, arXiv 2410.12491; Ng and Russell 2000).

    As published: no margin and unbounded below, so its scale is set by when training stops. At
    x = 0, where both branches meet, the gradient is that of the violated side, -2.
    """
    return torch.where(x > 0, -x, -2 * x)


def hinge(x: Tensor) -> Tensor:
    """max(0, 1 - x): a margin of one. At x = 1 the gradient is 0."""
    return F.relu(1 - x)


def squared_hinge(x: Tensor) -> Tensor:
    """max(0, 1 - x)^2: a margin of one, with a smooth end."""
    return F.relu(1 - x).square()


def logistic(x: Tensor) -> Tensor:
    """-log sigmoid(x): the Bradley-Terry likelihood of a preference."""
    return F.softplus(-x)


PAIRWISE: dict[str, Callable[[Tensor], Tensor]] = {
    "asymmetric": asymmetric,
    "hinge": hinge,
    "squared_hinge": squared_hinge,
    "logistic": logistic,
}


# --- an objective of pools: scores [n, 2k], aligned completions first -> loss of each pool [n] ---


def max_entropy(scores: Tensor) -> Tensor:
    """-log P(which k completions are the expert's) / k (modules/choice.py): exact where the expert
    is tilted, and for k = 1 the logistic loss. Per completion, so that its size is not k's."""
    return -log_choice(scores) / (scores.shape[1] // 2)


POOLED: dict[str, Callable[[Tensor], Tensor]] = {"max_entropy": max_entropy}


class MaxMargin(pl.LightningModule):
    """Trains a reward on pools of completions; each is scored once, pairs are formed of scores.

    Batches are (token rows of b prompts with m completions each, order float32 [b, m, m]):
    order[i, p, q] is the weight of the pair "completion p is preferred to completion q" of
    prompt i, 0 for no pair. An objective of pools takes the first half of each for the expert's.
    """

    def __init__(
        self,
        reward: NetworkReward,
        objective: str,
        learning_rate: float,
        weight_decay: float,
        warmup: float,
    ) -> None:
        super().__init__()
        self.reward = reward
        self.network = reward.network.train()
        self.objective = objective
        self.recipe: dict[str, Any] = {
            "learning_rate": learning_rate,
            "weight_decay": weight_decay,
            "warmup": warmup,
        }

    def measure(self, rows: Sequence[Sequence[int]], order: Tensor) -> tuple[Tensor, Tensor]:
        """The loss, and the share of pairs in order."""
        scores = self.reward.forward(rows).view(order.shape[:2])
        # x[i, p, q] = R(completion p) - R(completion q) of prompt i
        x = scores.unsqueeze(2) - scores.unsqueeze(1)
        right = mean_over_pairs(x > 0, order)
        if self.objective in POOLED:
            return POOLED[self.objective](scores).mean(), right
        return mean_over_pairs(PAIRWISE[self.objective](x), order), right

    def training_step(self, batch: tuple[list[Sequence[int]], Tensor], index: int) -> Tensor | None:
        rows, order = batch
        pairs = float(order.sum())
        if not processes.total(pairs, order.device):
            return None
        loss, right = self.measure(rows, order)
        loss = processes.portion(loss, len(order) if self.objective in POOLED else pairs)
        right = processes.portion(right, pairs)
        self.log_dict({"loss": loss, "pair_accuracy": right}, batch_size=len(order), sync_dist=True)
        return loss

    def validation_step(self, batch: tuple[list[Sequence[int]], Tensor], index: int) -> None:
        rows, order = batch
        loss, right = self.measure(rows, order)
        self.log_dict(
            {"validation_loss": loss, "validation_pair_accuracy": right},
            batch_size=len(order),
            sync_dist=True,
        )

    def criterion(self, logged: Mapping[str, Tensor]) -> Tensor:
        """What early stopping makes least: the loss, where it has a least value.

        The asymmetric loss falls without end as scores grow: of such a reward it would measure the
        size. Its errors are counted instead.
        """
        if self.objective == "asymmetric":
            return 1 - logged["validation_pair_accuracy"]
        return logged["validation_loss"]

    def configure_optimizers(self) -> Any:
        return by_recipe(self.trainer, self.network, self.recipe)


def mean_over_pairs(values: Tensor, order: Tensor) -> Tensor:
    """The mean of values [b, m, m] with the weights of pairs, `order`; 0 where there is none."""
    return (values * order).sum() / order.sum().clamp_min(torch.finfo(order.dtype).tiny)


def aligned_over_reference(n: int, k: int) -> Tensor:
    """All k^2 pairs of each prompt's pool, aligned completions first: order [n, 2k, 2k]."""
    order = torch.zeros(2 * k, 2 * k)
    order[:k, k:] = 1
    return order.expand(n, -1, -1)


def by_odds(scores: Tensor) -> Tensor:
    """All pairs of a pool with Bradley and Terry's probabilities of `scores` [n, m], in natural
    units: order [n, m, m], sigmoid(score p - score q), 0 for a completion and itself."""
    odds = torch.sigmoid(scores.unsqueeze(2) - scores.unsqueeze(1))
    return odds * (1 - torch.eye(scores.shape[1], device=scores.device))


def collate(
    examples: Sequence[tuple[Sequence[Sequence[int]], Tensor]],
) -> tuple[list[Sequence[int]], Tensor]:
    """(m token rows, order [m, m]) of each prompt -> what the module reads."""
    pools, orders = zip(*examples, strict=True)
    return [row for pool in pools for row in pool], torch.stack(orders)
