"""A reward from labels: binary cross-entropy on the probability that a comment is not toxic."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.nn import functional as F

from irl_exp import processes
from irl_exp.models.network_reward import NetworkReward
from irl_exp.modules.training import by_recipe


class RewardModeling(pl.LightningModule):
    """P(not toxic | text) = sigmoid(R(text)), so R is the log-odds of "not toxic".

    Batches are (token rows, labels float32 [n], 1 = toxic).
    """

    def __init__(
        self, reward: NetworkReward, learning_rate: float, weight_decay: float, warmup: float
    ) -> None:
        super().__init__()
        self.reward = reward
        self.network = reward.network.train()
        self.recipe: dict[str, Any] = {
            "learning_rate": learning_rate,
            "weight_decay": weight_decay,
            "warmup": warmup,
        }

    def loss(self, rows: Sequence[Sequence[int]], labels: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(self.reward.forward(rows), 1 - labels)

    def training_step(self, batch: tuple[Sequence[Sequence[int]], Tensor], index: int) -> Tensor:
        rows = len(batch[0])
        loss = processes.portion(self.loss(*batch), rows)
        self.log("loss", loss, batch_size=rows, sync_dist=True)
        return loss

    def validation_step(self, batch: tuple[Sequence[Sequence[int]], Tensor], index: int) -> None:
        self.log("validation_loss", self.loss(*batch), batch_size=len(batch[0]), sync_dist=True)

    def criterion(self, logged: Mapping[str, Tensor]) -> Tensor:
        """What early stopping makes least."""
        return logged["validation_loss"]

    def configure_optimizers(self) -> Any:
        return by_recipe(self.trainer, self.network, self.recipe)


def collate(examples: Sequence[tuple[Sequence[int], int]]) -> tuple[list[Sequence[int]], Tensor]:
    """(token row, label) pairs -> what the module reads."""
    rows, labels = zip(*examples, strict=True)
    return list(rows), torch.tensor(labels, dtype=torch.float32)
