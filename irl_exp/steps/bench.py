"""Where steps work: the configuration, the store, the run's tracker, seeds and the device.

A step names what decides its result (its own config, its inputs, its seed, how numbers are
computed) and how to compute it; the bench looks it up in the store, and reports what it says.
"""

import json
import logging
import shutil
import time
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any

import torch

from irl_exp.config import Config
from irl_exp.modules.training import (
    CHECKPOINT_FILE,
    CURVES_FILE,
    RESUMED_FILES,
    WORKING_FOLDER,
)
from irl_exp.store import Artifact, Store
from irl_exp.tracking import NOT_APPLICABLE, Tracker, Value

log = logging.getLogger(__name__)
SUMMARY_FILE = "summary.json"
# Steps that several processes do together, where there are several.
TRAINED = ("pretrain", "ground_truth", "align", "recover")


class UntilReached(Exception):
    """The step named by `until` is done."""


@dataclass
class Bench:
    config: Config
    store: Store
    tracker: Tracker

    def do(
        self,
        step: str,
        version: int,
        compute: Callable[[Path], None],
        *,
        config: Any,
        inputs: Mapping[str, Artifact | None],
        seed: int,
        label: str | None = None,
    ) -> Artifact:
        """The artifact of a step, found or computed; its curves and numbers go to the run.

        `label` is how the run calls this use of the step, where that differs from `step`.
        `version` rises whenever the step's output changes for the same inputs.
        """
        label = label or step
        identity = {
            "version": version,
            "config": asdict(config) if is_dataclass(config) else config,  # type: ignore[arg-type]
            "inputs": {name: a.fingerprint if a else None for name, a in inputs.items()},
            "seed": seed,
            "numerics": self.numerics(step),
        }

        def attempt(folder: Path) -> None:
            _clear(folder)
            # Library code draws from generators of its own; this is for what libraries draw unasked
            # (dropout), so that a step does not depend on which steps were computed before it.
            torch.manual_seed(derive(seed, step))
            compute(folder)
            (folder / CHECKPOINT_FILE).unlink(missing_ok=True)
            shutil.rmtree(folder / WORKING_FOLDER, ignore_errors=True)

        start = time.perf_counter()
        artifact = self.store.fetch(step, identity, attempt, rerun=self.config.rerun, label=label)
        seconds = time.perf_counter() - start
        log.info("%-16s %s in %.1f s", label, "found" if artifact.hit else "done", seconds)
        self.tracker.used(label, artifact.fingerprint)
        self.tracker.log(label, read_jsonl(artifact.path / CURVES_FILE))
        self.tracker.summarize({f"time/{label}_seconds": seconds})
        return artifact

    def report(self, artifact: Artifact, prefix: str = "") -> dict[str, Value]:
        """Add the numbers that a step wrote beside its result to the run's summary."""
        numbers = {prefix + name: value for name, value in read_summary(artifact.path).items()}
        self.tracker.summarize(numbers)
        return numbers

    def finish(self, step: str) -> None:
        """Leave the study if `step` is where the user wants it to end."""
        if self.config.until == step:
            raise UntilReached(step)

    def numerics(self, step: str) -> dict[str, Any]:
        """How a step computes numbers, as far as it can change its result."""
        trainer = self.config.trainer
        numerics = {
            "device": self.device,
            "precision": trainer.precision,
            "matmul_precision": trainer.matmul_precision,
            "sample_batch_size": trainer.sample_batch_size,
        }
        if step in TRAINED and trainer.processes > 1:
            # Sums over several processes are rounded otherwise, and by whose gradients are whole.
            numerics |= {"processes": trainer.processes}
            numerics |= {"sharded": True} if trainer.sharded else {}
        return numerics

    @property
    def device(self) -> str:
        accelerator = self.config.trainer.accelerator
        if accelerator in ("gpu", "cuda"):
            return "cuda"
        return accelerator

    def generator(self, seed: int, purpose: str) -> torch.Generator:
        """A generator of its own for each purpose, on the device that samples."""
        return torch.Generator(self.device).manual_seed(derive(seed, purpose))


def _clear(folder: Path) -> None:
    """Remove what an earlier attempt left, except what the next one goes on from: a checkpoint with
    its curves, and the parts of a fit that is made of several."""
    kept = RESUMED_FILES if (folder / CHECKPOINT_FILE).is_file() else ()
    for leaving in folder.iterdir():
        if leaving.name not in (*kept, WORKING_FOLDER):
            shutil.rmtree(leaving) if leaving.is_dir() else leaving.unlink()


def derive(seed: int, purpose: str) -> int:
    """Streams of different purposes under one root seed do not overlap."""
    return zlib.crc32(f"{purpose}/{seed}".encode())


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def write_jsonl(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def read_summary(folder: Path) -> dict[str, Value]:
    path = folder / SUMMARY_FILE
    return json.loads(path.read_text()) if path.is_file() else {}


def write_summary(folder: Path, numbers: Mapping[str, Value]) -> None:
    """What has no value has no meaning there: JSON knows no NaN."""
    told = {name: NOT_APPLICABLE if value != value else value for name, value in numbers.items()}
    (folder / SUMMARY_FILE).write_text(json.dumps(told, indent=2, allow_nan=False) + "\n")
