"""A study killed at random moments ends, launched again, with the numbers of one left alone."""

import json
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SMALL = ["+debug=smoke", "dataset.size=1200", "trainer.threads=1", "evaluation.draws=10"]
# The command, with checkpoints so often that a short study has some.
DRIVER = """
import sys
from irl_exp import cli
from irl_exp.modules import training
training.CHECKPOINT_SECONDS, training.COST_FACTOR = 0.1, 1.0
cli.main()
"""


def launch(folder: Path, run: str, kill_after: float | None = None) -> int:
    """The exit status; killed without warning after so many seconds, if it still runs then."""
    words = [*SMALL, f"paths.store={folder}/store", f"hydra.run.dir={folder}/{run}"]
    process = subprocess.Popen(
        [sys.executable, "-c", DRIVER, *words],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        process.communicate(timeout=kill_after)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
    return process.returncode


def results(run: Path) -> dict[str, Any]:
    summary = json.loads((run / "summary.json").read_text())
    return {k: v for k, v in summary.items() if not k.startswith(("time/", "store/"))}


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
    assert launch(whole, "run") == 0
    moments = random.Random(0)
    kills = [launch(killed, f"killed-{i}", moments.uniform(4, 12)) for i in range(4)]
    assert kills.count(-signal.SIGKILL) >= 2
    assert launch(killed, "run") == 0
    assert results(killed / "run") == results(whole / "run")
    curves = [(folder / "run" / "metrics.jsonl").read_text() for folder in (killed, whole)]
    assert curves[0] == curves[1]
    assert list((killed / "store").glob("*/.tmp-*")) == []
    assert list((killed / "store").rglob("checkpoint.*")) == []
