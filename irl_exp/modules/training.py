"""One way to fit every Lightning module: trainer, optimizer with its schedule, curves, resuming."""

import json
import logging
import os
import signal
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.plugins.environments import LightningEnvironment
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.utilities import rank_zero_only
from torch import nn
from torch.distributed.tensor import DTensor
from torch.utils.data import DataLoader

from irl_exp import processes
from irl_exp.config import InputError, TrainerConfig
from irl_exp.data.batches import ResumableLoader
from irl_exp.models.recompute import recomputing
from irl_exp.modules.finite import Finite
from irl_exp.modules.sharding import ShardedStrategy

log = logging.getLogger(__name__)

CURVES_FILE = "metrics.jsonl"
CHECKPOINT_FILE = "checkpoint.ckpt"
# Where a step that trains several times, or by another library's trainer, keeps what is finished:
# it outlives a kill, as checkpoints do, and is removed once the result is safe.
WORKING_FOLDER = "working"
# What a killed training leaves in its folder, and a later one goes on from.
RESUMED_FILES = (CHECKPOINT_FILE, CURVES_FILE)
# Seconds between checkpoints; more where saving one would take more than a twentieth of the time.
CHECKPOINT_SECONDS = 10.0
COST_FACTOR = 20.0
LOG_EVERY = 10


class Curves(Logger):
    """Lightning's log calls as JSON lines {global_step, name: value, ...} inside the artifact."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.path = folder / CURVES_FILE

    @property
    def name(self) -> str:
        return "curves"

    @property
    def version(self) -> str:
        return "0"

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """The config stands in the manifest."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        numbers = {name: float(value) for name, value in metrics.items() if name != "epoch"}
        with self.path.open("a") as lines:
            lines.write(json.dumps({"global_step": step, **numbers}) + "\n")


class Checkpoints(pl.Callback):
    """Saves, every few seconds, all that training needs to go on as if it had never stopped.

    Weights, optimizer, schedule and progress are Lightning's business; generators of the module
    are the module's; the loader's place, the global generators (dropout) and how far the curves had
    come are kept here. One file, replaced atomically. Of several processes the first writes it, and
    all go on from it; the others' global generators begin anew.
    """

    def __init__(self, folder: Path, loader: DataLoader) -> None:
        self.loader = loader
        self.path = folder / CHECKPOINT_FILE
        self.curves = folder / CURVES_FILE
        self.restored: dict[str, Any] | None = None
        self.saved = time.monotonic()
        self.cost = 0.0

    def state_dict(self) -> dict[str, Any]:
        return {
            "loader": self.loader.state_dict() if isinstance(self.loader, ResumableLoader) else {},
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            "curves": self.curves.stat().st_size if self.curves.is_file() else 0,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.restored = state

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        # Lightning would do this itself, had no module asked for the number of steps before.
        if self.restored is not None and isinstance(self.loader, ResumableLoader):
            self.loader.load_state_dict(self.restored["loader"])
        if not trainer.is_global_zero:
            return
        if self.restored is None:
            self.curves.unlink(missing_ok=True)
            return
        log.info("%s: resumed at step %d", type(module).__name__, trainer.global_step)
        torch.set_rng_state(self.restored["random"])
        if self.restored["random_cuda"]:
            torch.cuda.set_rng_state_all(self.restored["random_cuda"])
        if self.curves.is_file():
            os.truncate(self.curves, self.restored["curves"])

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        start = time.monotonic()
        wait = max(CHECKPOINT_SECONDS, COST_FACTOR * self.cost)
        # All processes save together, when it is time for the first.
        due = trainer.strategy.broadcast(start - self.saved >= wait)
        if not due or trainer.should_stop:
            return
        done = trainer.current_epoch * trainer.num_training_batches + index + 1
        # Validation, and what this batch logs, come only after this hook: a checkpoint taken now
        # would miss them. The next batch is soon enough.
        if done % trainer.num_training_batches == 0 or done % LOG_EVERY == 0:
            return
        temporary = self.path.with_suffix(".part")
        trainer.save_checkpoint(temporary, weights_only=False)
        if trainer.is_global_zero:
            os.replace(temporary, self.path)
        self.saved = time.monotonic()
        self.cost = self.saved - start


def fit(
    module: pl.LightningModule,
    loader: DataLoader,
    config: TrainerConfig,
    folder: Path,
    *,
    epochs: int = 1,
    max_grad_norm: float | None = None,
    validation: DataLoader | None = None,
    callbacks: Sequence[pl.Callback] = (),
) -> None:
    """Train `module` in place; its curves go to `folder`. Raises InputError if it diverged: then
    the batch at which it did is there too (finite.py).

    Goes on from the checkpoint that a killed training of the same module left in `folder`; who
    calls removes it once the result is safe. `callbacks` watch (early_stopping.py, trace.py).
    Where there are several processes, all train: each its rows of every training batch, and each
    the whole of `validation`.
    """
    processes.everywhere(
        _fit,
        module,
        loader,
        config,
        folder.absolute(),
        epochs=epochs,
        max_grad_norm=max_grad_norm,
        validation=validation,
        callbacks=callbacks,
    )
    if not all(parameter.isfinite().all() for parameter in module.parameters()):
        raise InputError(
            f"{type(module).__name__}: training diverged to weights that are not finite; "
            "expected a smaller learning rate"
        )
    module.eval()


def _fit(
    module: pl.LightningModule,
    loader: DataLoader,
    config: TrainerConfig,
    folder: Path,
    *,
    epochs: int,
    max_grad_norm: float | None,
    validation: DataLoader | None,
    callbacks: Sequence[pl.Callback],
) -> None:
    checkpoint = folder / CHECKPOINT_FILE
    with warnings.catch_warnings():
        # Few loader workers are right for token rows that already stand in memory.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        # A short training logs its only steps anyway.
        warnings.filterwarnings("ignore", message=".*smaller than the logging interval.*")
        # A reward is trained with validation data or without.
        warnings.filterwarnings("ignore", message=".*but have no `val_dataloader`.*")
        # PPO's policy has no dropout to switch on.
        warnings.filterwarnings("ignore", message=".*in eval mode at the start of training.*")
        warnings.filterwarnings("ignore", message=".*`?isinstance\\(treespec, LeafSpec\\)`?.*")
        trainer = pl.Trainer(
            accelerator=config.accelerator,
            devices=1,
            **_several(config.sharded),  # type: ignore[arg-type]
            precision=config.precision,  # type: ignore[arg-type]
            max_epochs=epochs,
            logger=Curves(folder),
            log_every_n_steps=LOG_EVERY,
            num_sanity_val_steps=0,
            callbacks=[
                Checkpoints(folder, loader),
                *callbacks,
                *([_OwnSignals()] if processes.size() > 1 else []),
                Finite(folder, max_grad_norm),
            ],
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=sys.stderr.isatty(),
        )
        resumed = checkpoint if checkpoint.is_file() else None
        with recomputing(module) if config.recompute_activations else nullcontext():
            trainer.fit(module, loader, validation, ckpt_path=resumed, weights_only=True)


class _OwnSignals(pl.Callback):
    """SIGTERM goes on to mean what it did. Lightning would first tell the other processes, in the
    middle of whatever all are at, and wait for ever."""

    def __init__(self) -> None:
        self.before = signal.getsignal(signal.SIGTERM)

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        signal.signal(signal.SIGTERM, self.before)


class _Processes(LightningEnvironment):
    """Those of processes.py, to Lightning: each as if alone on a machine, with its one device."""

    @property
    def creates_processes_externally(self) -> bool:
        return True

    def node_rank(self) -> int:
        return processes.rank()

    def local_rank(self) -> int:
        return 0


def _several(sharded: bool) -> dict[str, Any]:
    """How Lightning trains in several processes; in one it is told nothing."""
    if processes.size() == 1:
        return {}
    return {
        "num_nodes": processes.size(),
        "strategy": ShardedStrategy() if sharded else DDPStrategy(),
        # What is gathered in inference mode could not be trained with afterwards.
        "inference_mode": not sharded,
        "plugins": [_Processes()],
        "use_distributed_sampler": False,  # batches are ours to divide
    }


def by_recipe(trainer: pl.Trainer, network: nn.Module, recipe: Mapping[str, Any]) -> dict[str, Any]:
    """`adamw` over all steps of the trainer."""
    return adamw(
        network,
        **recipe,
        steps=int(trainer.estimated_stepping_batches),
        fused=trainer.precision != "16-mixed",
    )


def adamw(
    module: nn.Module,
    learning_rate: float,
    weight_decay: float,
    warmup: float,
    steps: int,
    rates: Mapping[nn.Module, float] = MappingProxyType({}),
    fused: bool = True,
) -> dict[str, Any]:
    """AdamW with linear warm-up over the first `warmup` share of `steps` and linear decay to zero.

    Weight decay spares vectors (biases and norms), as is the custom. `rates` are modules beside it,
    each with a learning rate of its own under the same schedule and no weight decay. `fused` is the
    faster kernel, which takes scaled gradients (of 16 bits) as they are: they could not be clipped.
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
    # The faster kernels do not mix divided weights with whole ones.
    divided = any(isinstance(parameter, DTensor) for parameter in parameters)
    optimizer = torch.optim.AdamW(
        groups, lr=learning_rate, fused=fused and not divided, foreach=False if divided else None
    )
    rise = max(1, round(warmup * steps))

    def scale(step: int) -> float:
        return min((step + 1) / rise, max(0.0, (steps - step) / max(1, steps - rise)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, scale)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
