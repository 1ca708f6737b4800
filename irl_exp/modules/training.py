"""One way to fit every Lightning module: trainer, optimizer with its schedule, curves."""

import json
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers.logger import Logger
from torch import nn
from torch.utils.data import DataLoader

from irl_exp.config import InputError, TrainerConfig

CURVES_FILE = "metrics.jsonl"


class Curves(Logger):
    """Lightning's log calls as JSON lines {global_step, name: value, ...} inside the artifact."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.path = folder / CURVES_FILE
        self.path.unlink(missing_ok=True)

    @property
    def name(self) -> str:
        return "curves"

    @property
    def version(self) -> str:
        return "0"

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """The config stands in the manifest."""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        numbers = {name: float(value) for name, value in metrics.items() if name != "epoch"}
        with self.path.open("a") as lines:
            lines.write(json.dumps({"global_step": step, **numbers}) + "\n")


def fit(
    module: pl.LightningModule,
    loader: DataLoader,
    config: TrainerConfig,
    folder: Path,
    *,
    epochs: int = 1,
    max_grad_norm: float | None = None,
    validation: DataLoader | None = None,
) -> None:
    """Train `module` in place; its curves go to `folder`. Raises InputError if it diverged."""
    with warnings.catch_warnings():
        # Few loader workers are right for token rows that already stand in memory.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        # A short training logs its only steps anyway.
        warnings.filterwarnings("ignore", message=".*smaller than the logging interval.*")
        # PPO's policy has no dropout to switch on.
        warnings.filterwarnings("ignore", message=".*in eval mode at the start of training.*")
        warnings.filterwarnings("ignore", message=".*`?isinstance\\(treespec, LeafSpec\\)`?.*")
        trainer = pl.Trainer(
            accelerator=config.accelerator,
            devices=1,
            precision=config.precision,  # type: ignore[arg-type]
            max_epochs=epochs,
            gradient_clip_val=max_grad_norm,
            logger=Curves(folder),
            log_every_n_steps=10,
            num_sanity_val_steps=0,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=sys.stderr.isatty(),
        )
        trainer.fit(module, loader, validation)
    if not all(parameter.isfinite().all() for parameter in module.parameters()):
        raise InputError(
            f"{type(module).__name__}: training diverged to weights that are not finite; "
            "expected a smaller learning rate"
        )
    module.eval()


def adamw(
    module: nn.Module,
    learning_rate: float,
    weight_decay: float,
    warmup: float,
    steps: int,
    rates: Mapping[nn.Module, float] = MappingProxyType({}),
) -> dict[str, Any]:
    """AdamW with linear warm-up over the first `warmup` share of `steps` and linear decay to zero.

    Weight decay spares vectors (biases and norms), as is the custom. `rates` are modules beside it,
    each with a learning rate of its own under the same schedule and no weight decay.
    """
    parameters = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        *(
            {"params": list(beside.parameters()), "lr": rate, "weight_decay": 0.0}
            for beside, rate in rates.items()
        ),
    ]
    optimizer = torch.optim.AdamW(groups, lr=learning_rate, fused=True)
    rise = max(1, round(warmup * steps))

    def scale(step: int) -> float:
        return min((step + 1) / rise, max(0.0, (steps - step) / max(1, steps - rise)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, scale)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
