"""What recoveries were worth epoch by epoch, of runs that kept their trace."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from irl_exp.report.collect import axes, label, ordered, value
from irl_exp.report.run import Run, number

# Name of the curve -> what a reader sees.
MEASURES = {
    "accuracy_at_zero": "accuracy at zero",
    "auc": "AUC",
    "starc": "STARC distance",
}
# An accuracy this near to that of calling all comments toxic, or none, is that of doing so.
CONSTANT = 0.005

Grid = NDArray[np.float64]


@dataclass(frozen=True)
class Epochs:
    """Attributes:
    labels: of each traced run.
    grids: name in MEASURES -> [runs, epochs], NaN where a run stopped before; epoch 0 is what
        training began with.
    constant: the two accuracies, of calling every comment toxic and of calling none so; [runs, 2],
        NaN where a run does not say.
    """

    labels: list[str]
    grids: dict[str, Grid]
    constant: Grid

    @classmethod
    def of(cls, runs: Sequence[Run]) -> "Epochs | None":
        """None where no run was traced."""
        named = axes(runs)
        traced = [run for run in ordered(runs, named) if run.curve("evaluate", "auc")[0]]
        if not traced:
            return None
        curves = {name: [run.curve("evaluate", name) for run in traced] for name in MEASURES}
        last = max(at for each in curves.values() for places, _ in each for at in places)
        grids = {name: np.full((len(traced), last + 1), np.nan) for name in MEASURES}
        for name, each in curves.items():
            for row, (places, values) in enumerate(each):
                grids[name][row, places] = values
        toxic = [value(run, "comments/test_toxic_share") for run in traced]
        shares = np.array([np.nan if share is None else share for share in toxic])
        return cls(
            [label(run, named) for run in traced], grids, np.stack([shares, 1 - shares], axis=1)
        )

    def said(self) -> str:
        """What parts the runs, in words."""
        accuracy, auc = self.grids["accuracy_at_zero"], self.grids["auc"]
        runs, epochs = accuracy.shape
        known = np.isfinite(accuracy)
        near = np.abs(accuracy[..., None] - self.constant[:, None]) <= CONSTANT
        constant = int((near.any(-1) & known).sum())
        ends = [grid[np.arange(runs), known.sum(1) - 1] for grid in (accuracy, auc)]
        last, last_auc = (f"{number(e.min())} to {number(e.max())}" for e in ends)
        return (
            f"{runs} runs, each before training and after up to {epochs - 1} epochs. After the "
            f"last one accuracy at zero is {last} and AUC {last_auc}. Accuracy at zero is that of "
            f"calling every comment toxic, or none, in {constant} of {int(known.sum())} cells: "
            "where a reward has its zero is arbitrary, and what moves this accuracy and not AUC is "
            "the threshold."
        )
