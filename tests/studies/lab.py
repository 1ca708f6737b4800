"""Small studies through the entry point, and what they leave behind."""

import csv
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from irl_exp import cli

POLICIES = ("reference", "aligned", "realigned")
CONTROLS = ("log_ratio", "length", "untrained", "oracle")
FACTORS = ("length", "ended", "repetition", "likelihood")
NOT_APPLICABLE = "not applicable"
# Steps of a whole run, by the names under which the run reports them.
STEPS = (
    *("curate", "pretrain", "ground_truth", "ground_truth_quality", "align", "observe_reference"),
    *("observe_aligned", "demonstrate", "recover", *(f"control_{name}" for name in CONTROLS)),
    *("twin", "evaluate_panel"),
    *(f"scores_{of}" for of in ("truth", "recovered", "twin", *(f"control_{c}" for c in CONTROLS))),
    *("evaluate", "identify", "interpret"),
    *("spent", "realign", "observe_realigned"),
)
# The numbers that every run must have.
NUMBERS = (
    *("ground_truth/auc", "ground_truth/accuracy"),
    *(
        f"policy/{policy}/{name}"
        for policy in POLICIES
        for name in (
            *("toxicity_rate", "toxicity_rate_second", "mean_reward", "kl"),
            *("expected_max_toxicity", "expected_max_toxicity_second"),
            *("toxicity_probability", "toxicity_probability_second"),
            *("perplexity", "length", "distinct_2"),
        )
    ),
    *(
        f"policy/{change}{end}"
        for measure in ("toxicity_rate", "toxicity_rate_second", "mean_reward", "length")
        for change in (
            *(f"aligned/{measure}_change", f"realigned/{measure}_change"),
            f"realigned/{measure}_change_from_aligned",
        )
        for end in ("", "_p")
    ),
    *("policy/aligned/optimality", "policy/aligned/optimality_samples"),
    "policy/aligned/optimality_effective_sample_size",
    *("recovery/auc", "recovery/accuracy", "recovery/f1", "recovery/accuracy_at_zero"),
    *("recovery/pair_accuracy", "recovery/starc", "recovery/starc_floor"),
    *("recovery/pearson", "recovery/spearman", "recovery/kendall"),
    "validation/recovery_auc",
    *("recovery/identified_fraction", "recovery/identified_accuracy"),
    *("recovery/jointly_identified_fraction", "recovery/jointly_identified_accuracy"),
    *("recovery/ambiguous_fraction", "recovery/certified_fraction"),
    "recovery/contradicted_fraction",
    *("placebo/identified_fraction", "placebo/auc"),
    *("shuffled/identified_fraction", "shuffled/auc"),
    *("shortcut/truth", "shortcut/truth_given_all", "shortcut/length_matched_pair_accuracy"),
    *(
        f"shortcut/{name}"
        for factor in FACTORS
        for name in (factor, f"{factor}_in_truth", f"{factor}_given_truth", f"truth_given_{factor}")
    ),
    *("attribution/agreement", "attribution/words", "attribution/texts"),
    *("findings/candidates", "findings/count"),
    *(f"control/{control}/{name}" for control in CONTROLS for name in ("auc", "starc")),
    *(f"time/{step}_seconds" for step in (*STEPS, "total")),
    *("store/hits", "store/misses"),
)


class Lab:
    """Runs irl-exp in this process, with its files in a folder of its own."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.store = folder / "store"
        self.patch = patch
        self.runs = 0

    def run(self, *overrides: str, store: Path | None = None) -> Path:
        """The directory of a small run."""
        self.runs += 1
        folder = self.folder / f"run-{self.runs}"
        self.main(*overrides, f"hydra.run.dir={folder}", store=store)
        return folder

    def main(self, *arguments: str, store: Path | None = None) -> None:
        small = ("+debug=smoke", "trainer.threads=1", f"paths.store={store or self.store}")
        self.patch.setattr(sys, "argv", ["irl-exp", *arguments, *small])
        cli.main()


def summary(run: Path) -> dict[str, Any]:
    return read(run / "summary.json")


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def results(run: Path) -> dict[str, Any]:
    """The summary without what may differ between two runs of one study."""
    return {n: v for n, v in summary(run).items() if not n.startswith(("time/", "store/"))}


def artifact(lab: Lab, run: Path, label: str) -> Path:
    """The folder in the store that a run used under a label."""
    (folder,) = lab.store.glob(f"*/{read(run / 'manifest.json')['steps'][label]}")
    return folder


def write_csv(path: Path, rows: list[tuple[str, str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("comment", "verdict"))
        writer.writerows(rows)
