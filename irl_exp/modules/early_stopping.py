"""Early stopping: training ends when it stops helping, and gives back the best epoch's weights."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from irl_exp.modules.sharding import divided_like, whole


class EarlyStopping(pl.Callback):
    """Stops after `patience` epochs in a row that were no better on validation data than the best.

    `criterion` makes a number, less for better, of what the module logged in validation. However
    training ends, the module is left with the trained weights of its best epoch. All that is kept
    stands in checkpoints, so that who goes on from one stops where he would have stopped.
    """

    def __init__(self, patience: int, criterion: Callable[[Mapping[str, Tensor]], Tensor]) -> None:
        self.patience = patience
        self.criterion = criterion
        self.best = math.inf
        self.weights: dict[str, Tensor] = {}
        self.waited = 0

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "weights": self.weights, "waited": self.waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self.weights, self.waited = state["best"], state["weights"], state["waited"]

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        value = float(self.criterion(trainer.callback_metrics))
        if value < self.best:
            self.best, self.waited = value, 0
            self.weights = {
                name: whole(parameter.detach()).to("cpu", copy=True)
                for name, parameter in module.named_parameters()
                if parameter.requires_grad
            }
            return
        self.waited += 1
        if self.waited >= self.patience:
            trainer.should_stop = True

    @torch.no_grad()
    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        for name, weights in self.weights.items():
            parameter = module.get_parameter(name)
            parameter.copy_(divided_like(weights, parameter))
