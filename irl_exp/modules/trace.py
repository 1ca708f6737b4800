"""How a reward comes about: its scores of fixed texts, before training and after each epoch."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytorch_lightning as pl
import torch
from torch import Tensor

from irl_exp.models import network_reward
from irl_exp.models.network_reward import NetworkReward

TRACE_FILE = "trace.parquet"
# How its columns of scores begin, before the number of the epoch; 0 is before training.
EPOCH = "epoch_"


class Trace(pl.Callback):
    """Scores the texts of a table (prompt, completion and whatever else) as a reward trains.

    In the end `folder`/trace.parquet is that table with a column for each epoch, raw scores in
    float32. Nothing is drawn, so that a reward which is watched is the one that would have come of
    it unwatched. In the precision of training, as what validation measures is. Scores stand in
    checkpoints. For modules that train a `reward`; with validation data, for it is then that they
    are scored.
    """

    def __init__(self, texts: pd.DataFrame, reward: NetworkReward, folder: Path) -> None:
        self.texts = texts
        self.rows = network_reward.encode(
            reward.tokenizer, reward.network, texts["prompt"].tolist(), texts["completion"].tolist()
        )
        self.folder = folder.absolute()
        self.scores: list[Tensor] = []

    def state_dict(self) -> dict[str, Any]:
        return {"scores": self.scores}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.scores = state["scores"]

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if not self.scores:  # and otherwise it goes on
            self._look(trainer, module)

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._look(trainer, module)

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            scores = {f"{EPOCH}{n}": each.numpy() for n, each in enumerate(self.scores)}
            self.texts.assign(**scores).to_parquet(self.folder / TRACE_FILE, index=False)

    @torch.no_grad()
    def _look(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        training = module.training
        module.eval()
        with trainer.precision_plugin.val_step_context():
            self.scores.append(module.reward.forward(self.rows).cpu())  # type: ignore[union-attr]
        module.train(training)
