"""When training stops, and which weights it leaves: on a course of losses that is written down."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from irl_exp.config import TrainerConfig
from irl_exp.data.batches import LengthBatches, ResumableLoader
from irl_exp.modules import training
from irl_exp.modules.early_stopping import EarlyStopping
from irl_exp.modules.training import fit

STEPS = 4  # in an epoch


class Killed(BaseException):
    pass


class Counter(pl.LightningModule):
    """`steps` counts the optimizer's steps; `frozen` never trains. Losses are as given."""

    def __init__(self, losses: list[float], kill: int | None = None) -> None:
        super().__init__()
        self.steps = nn.Parameter(torch.zeros(1))
        self.frozen = nn.Parameter(torch.ones(1), requires_grad=False)
        self.losses = losses
        self.kill = kill

    def training_step(self, batch: Tensor, index: int) -> Tensor:
        if round(self.steps.item()) == self.kill:
            raise Killed
        return -self.steps.sum()

    def validation_step(self, batch: Tensor, index: int) -> None:
        self.log("validation_loss", self.losses[self.current_epoch])

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD([self.steps], lr=1.0)


def criterion(logged: Mapping[str, Tensor]) -> Tensor:
    return logged["validation_loss"]


def run(module: Counter, patience: int | None, trainer: TrainerConfig, folder: Path) -> None:
    order = LengthBatches([1] * STEPS, 1, torch.Generator().manual_seed(0))
    fit(
        module,
        ResumableLoader(list(range(STEPS)), order, torch.tensor),
        trainer,
        folder,
        epochs=len(module.losses),
        validation=DataLoader(torch.zeros(1), generator=torch.Generator()),  # type: ignore[arg-type]
        callbacks=[] if patience is None else [EarlyStopping(patience, criterion)],
    )


# Losses after each epoch, the patience -> epochs that were trained, and the best of them.
COURSES = [
    ([3.0, 1.0, 2.0, 2.0, 0.0], 1, 3, 2),
    ([3.0, 1.0, 2.0, 2.0, 0.0], 2, 4, 2),
    ([3.0, 1.0, 2.0, 2.0, 0.0], 3, 5, 5),  # the wait was worth it
    ([3.0, 2.0, 1.0], 1, 3, 3),
    ([1.0, 1.0, 1.0], 2, 3, 1),  # as good is not better
    ([2.0, 3.0, 1.0, 3.0, 2.0, 0.0], 2, 5, 3),  # a better epoch starts the count anew
    ([float("nan"), 1.0, 2.0], 2, 3, 2),
]


@pytest.mark.parametrize(("losses", "patience", "trained", "best"), COURSES)
def test_it_stops_in_time_and_returns_the_best(
    losses: list[float],
    patience: int,
    trained: int,
    best: int,
    trainer: TrainerConfig,
    tmp_path: Path,
) -> None:
    module = Counter(losses)
    run(module, patience, trainer, tmp_path)
    assert module.steps.item() == best * STEPS
    assert module.frozen.item() == 1
    assert module.trainer.global_step == trained * STEPS


def test_without_it_all_epochs_are_trained(trainer: TrainerConfig, tmp_path: Path) -> None:
    module = Counter([1.0, 2.0, 3.0])
    run(module, None, trainer, tmp_path)
    assert module.steps.item() == 3 * STEPS


@pytest.mark.parametrize("kills", [[5], [9], [11], [13], [14], [6, 10, 14]])
def test_who_goes_on_stops_where_he_would_have(
    kills: list[int], trainer: TrainerConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before the best epoch is over, while it waits, and more than once."""
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", -1.0)
    monkeypatch.setattr(training, "COST_FACTOR", 0.0)
    losses = [3.0, 1.0, 2.0, 2.0, 0.0]
    for kill in kills:
        with pytest.raises(Killed):
            run(Counter(losses, kill), 2, trainer, tmp_path)
    for _ in range(2):  # the second time from a checkpoint of the epoch that was the last
        module = Counter(losses)
        run(module, 2, trainer, tmp_path)
        assert module.steps.item() == 2 * STEPS
        assert module.trainer.global_step == 4 * STEPS
