"""Maximum-margin inverse RL: what the aligned policy writes earns more than the reference's."""

from collections.abc import Callable, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.nn import functional as F

from irl_exp.models.reward_model import NetworkReward
from irl_exp.modules.training import adamw

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


OBJECTIVES: dict[str, Callable[[Tensor], Tensor]] = {
    "asymmetric": asymmetric,
    "hinge": hinge,
    "squared_hinge": squared_hinge,
    "logistic": logistic,
}


class MaxMargin(pl.LightningModule):
    """Trains a reward on pools of completions; each is scored once, pairs are formed of scores.

    Batches are (token rows of b prompts with m completions each, order float32 [b, m, m]):
    order[i, p, q] is the weight of the pair "completion p is preferred to completion q" of
    prompt i, 0 for no pair.
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
        self.objective = OBJECTIVES[objective]
        self.recipe: dict[str, Any] = {
            "learning_rate": learning_rate,
            "weight_decay": weight_decay,
            "warmup": warmup,
        }

    def differences(self, rows: Sequence[Sequence[int]], shape: tuple[int, int]) -> Tensor:
        """x[i, p, q] = R(completion p) - R(completion q) of prompt i: [b, m, m]."""
        scores = self.reward.forward(rows).view(shape)
        return scores.unsqueeze(2) - scores.unsqueeze(1)

    def training_step(self, batch: tuple[list[Sequence[int]], Tensor], index: int) -> Tensor | None:
        rows, order = batch
        if not order.any():
            return None
        x = self.differences(rows, order.shape[:2])  # type: ignore[arg-type]
        loss = (self.objective(x) * order).sum() / order.sum()
        right = ((x > 0) * order).sum() / order.sum()
        self.log_dict({"loss": loss, "pair_accuracy": right}, batch_size=len(order))
        return loss

    def validation_step(self, batch: tuple[list[Sequence[int]], Tensor], index: int) -> None:
        rows, order = batch
        x = self.differences(rows, order.shape[:2])  # type: ignore[arg-type]
        right = ((x > 0) * order).sum() / order.sum().clamp_min(1)
        self.log("validation_pair_accuracy", right, batch_size=len(order))

    def configure_optimizers(self) -> Any:
        steps = int(self.trainer.estimated_stepping_batches)
        fused = self.trainer.precision == "32-true"
        return adamw(self.network, **self.recipe, steps=steps, fused=fused)


def aligned_over_reference(n: int, k: int) -> Tensor:
    """All k^2 pairs of each prompt's pool, aligned completions first: order [n, 2k, 2k]."""
    order = torch.zeros(2 * k, 2 * k)
    order[:k, k:] = 1
    return order.expand(n, -1, -1)


def by_scores(scores: Tensor) -> Tensor:
    """All pairs that `scores` [n, m] tell apart, the higher one preferred: order [n, m, m]."""
    return (scores.unsqueeze(2) > scores.unsqueeze(1)).float()


def collate(
    examples: Sequence[tuple[Sequence[Sequence[int]], Tensor]],
) -> tuple[list[Sequence[int]], Tensor]:
    """(m token rows, order [m, m]) of each prompt -> what the module reads."""
    pools, orders = zip(*examples, strict=True)
    return [row for pool in pools for row in pool], torch.stack(orders)
