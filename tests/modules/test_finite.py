"""Training stops at the step where a number is not finite, and keeps the batch of that step."""

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from irl_exp.config import InputError, TrainerConfig
from irl_exp.data.batches import ResumableLoader
from irl_exp.modules.finite import BATCH_FILE
from irl_exp.modules.training import CURVES_FILE, fit


class Slope(pl.LightningModule):
    """Loss root(w x): its gradient is 0 / 0 where x = 0, and it is NaN where x is."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def training_step(self, batch: Tensor, index: int) -> Tensor:
        return (self.weight * batch).sqrt().sum()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.0)


def loader(values: list[float]) -> ResumableLoader:
    rows = [torch.tensor(value) for value in values]
    return ResumableLoader(rows, [[place] for place in range(len(rows))], torch.stack)


@pytest.mark.parametrize(
    ("odd", "what"),
    [
        (float("nan"), "the loss is nan"),
        (float("inf"), "the loss is inf"),
        (-1.0, "the loss is nan"),
        (0.0, "the gradient's norm is nan"),
    ],
)
@pytest.mark.parametrize("clipped", [None, 1.0])
def test_it_stops_where_it_happens(
    odd: float, what: str, clipped: float | None, tmp_path: Path, trainer: TrainerConfig
) -> None:
    values = [1.0, 4.0, 9.0, odd, 16.0]
    with pytest.raises(InputError) as refused:
        fit(Slope(), loader(values), trainer, tmp_path, max_grad_norm=clipped)
    path = tmp_path / BATCH_FILE
    assert str(refused.value) == (
        f"Slope: training diverged: {what} at step 3; expected a smaller learning rate, or rewards "
        f"within bounds (its batch is in {path})"
    )
    kept = torch.load(path, weights_only=True)
    assert (kept["module"], kept["step"]) == ("Slope", 3)
    torch.testing.assert_close(kept["batch"], torch.tensor([odd]), equal_nan=True)


def test_what_an_attempt_left_is_not_a_later_ones(tmp_path: Path, trainer: TrainerConfig) -> None:
    with pytest.raises(InputError):
        fit(Slope(), loader([1.0, 0.0]), trainer, tmp_path)
    assert (tmp_path / BATCH_FILE).is_file()
    fit(Slope(), loader([1.0, 2.0]), trainer, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} <= {CURVES_FILE}
