"""A run, read back from its directory: what was asked for, what came out, where its rewards are."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from irl_exp.config import InputError
from irl_exp.tracking import read_status

# What a run calls its rewards, and the steps that make them.
REWARDS = {"recovered": "recover", "ground_truth": "ground_truth"}


@dataclass(frozen=True)
class Run:
    """One run directory.

    Attributes:
        folder: the directory.
        summary: flat name -> number, or "not applicable"; docs/metrics.md defines each.
        recovered: the folder of R̂; None where the run ended before it.
        ground_truth: the folder of R*; None where it had none.
        config: the resolved configuration.
        manifest: commit, versions, seeds, and the fingerprint of each step.
        warnings: what a reader of the numbers must know.
    """

    folder: Path
    summary: Mapping[str, float | int | str] = field(repr=False)
    recovered: Path | None
    ground_truth: Path | None
    config: Mapping[str, Any] = field(repr=False)
    manifest: Mapping[str, Any] = field(repr=False)
    warnings: list[str]

    @classmethod
    def read(cls, folder: Path) -> "Run":
        """Raises InputError if the folder is no run directory, or its run is not done."""
        status = read_status(folder)
        if "run_id" not in status:
            raise InputError(f"{folder}: expected the directory of a run")
        if status["status"] != "done":
            said = "running, or was killed" if status["status"] == "running" else status["status"]
            raise InputError(f"{folder}: its run is {said}; expected one that is done")
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        steps, store = manifest["steps"], Path(manifest["store"])
        return cls(
            folder=folder,
            summary=json.loads((folder / "summary.json").read_text(encoding="utf-8")),
            **{name: store / s / steps[s] if s in steps else None for name, s in REWARDS.items()},
            config=yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8")),
            manifest=manifest,
            warnings=status["warnings"],
        )
