"""A number that is not finite stops training at the step where it appears; its batch is kept."""

from io import BytesIO
from pathlib import Path
from typing import Any, NoReturn

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.optim import Optimizer

from irl_exp import processes
from irl_exp.config import InputError
from irl_exp.modules.sharding import clip_gradients

# A dict of the training, its step, and the batch; `torch.load(path, weights_only=True)` reads it.
BATCH_FILE = "not_finite.pt"


class Finite(pl.Callback):
    """Looks at every loss and every gradient, and scales gradients down that are longer than
    `longest`: Lightning's gradient_clip_val, which is neither for gradients of which some are
    divided nor, in mixed precision, for fused optimizers.

    Modules that optimize by themselves (PPO) do both themselves. With 16-mixed the gradient is not
    looked at, and with several processes the loss is not.
    """

    def __init__(self, folder: Path, longest: float | None) -> None:
        self.folder = folder
        self.longest = float("inf") if longest is None else longest
        self.batch: Any = None

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if processes.rank() == 0:  # of an attempt before
            (self.folder / BATCH_FILE).unlink(missing_ok=True)

    def on_train_batch_start(
        self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.batch = batch

    def on_before_backward(
        self, trainer: pl.Trainer, module: pl.LightningModule, loss: Tensor
    ) -> None:
        if not module.automatic_optimization:
            return
        # Of several processes one alone must not stop: the gradients are everybody's.
        if processes.size() == 1 and not loss.isfinite():
            self._refuse(trainer, module, f"the loss is {loss:g}")

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Lightning calls it when gradients have been unscaled, if they were scaled."""
        if not module.automatic_optimization:
            return
        groups = optimizer.param_groups
        norm = clip_gradients((p for group in groups for p in group["params"]), self.longest)
        # Scaled gradients (of 16 bits) may be infinite: such a step is left out, the scale lowered.
        if trainer.precision != "16-mixed" and not norm.isfinite():
            self._refuse(trainer, module, f"the gradient's norm is {norm:g}")

    def _refuse(self, trainer: pl.Trainer, module: pl.LightningModule, what: str) -> NoReturn:
        refuse(type(module).__name__, trainer.global_step, what, self.batch, self.folder)


def refuse(name: str, step: int, what: str, batch: Any, folder: Path) -> NoReturn:
    """Keep the batch of the training `name` and stop.

    Raises:
        InputError: always; it says what is not finite, where, and where the batch is.
    """
    path = folder / BATCH_FILE
    kept = f"its batch is in {path}"
    if processes.rank() == 0:
        content = BytesIO()
        torch.save({"module": name, "step": step, "batch": batch}, content)
        try:
            path.write_bytes(content.getvalue())
        except OSError as error:
            kept = f"its batch could not be kept: {error.strerror}"
    raise InputError(
        f"{name}: training diverged: {what} at step {step}; expected a smaller learning rate, or "
        f"rewards within bounds ({kept})"
    )
