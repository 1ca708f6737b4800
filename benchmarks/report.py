"""How long irl-report takes on a large sweep.

    python -m benchmarks.report RUN [--runs 1000]

RUN is the directory of a run, such as one of `irl-exp +debug=smoke`. It is copied as often as asked
into a temporary folder, as runs of five models, four solvers and many seeds with other numbers; of
every fifty one has failed, one was killed while it wrote its numbers, and one has lost its panel.
Prints the seconds of `irl-report` on that folder, its start included.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

MODELS = {"neox-50k": 5e4, "neox-100k": 1e5, "neox-400k": 4e5, "neox-1m5": 1.6e6, "neox-6m": 5.8e6}
SOLVERS = ("asymmetric", "hinge", "logistic", "svm")


def main() -> None:
    parser = argparse.ArgumentParser(description="How long irl-report takes on a large sweep.")
    parser.add_argument("run", type=Path, metavar="RUN", help="directory of a run, to be copied")
    parser.add_argument("--runs", type=int, default=1000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sweep = Path(folder) / "sweep"
        for place in range(arguments.runs):
            write(arguments.run, sweep / f"run-{place}", place)
        start = time.perf_counter()
        command = [sys.executable, "-m", "irl_exp.report.command", str(sweep)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stderr)
        page = sweep / "report" / "index.html"
        print(
            f"{arguments.runs} runs: {time.perf_counter() - start:.1f} s, "
            f"a page of {page.stat().st_size / 2**20:.1f} MiB"
        )


def write(source: Path, folder: Path, place: int) -> None:
    """The copy in this place: a model, a solver and a seed that no other copy has together."""
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("figures", "*.md", "*.log"))
    rng = np.random.default_rng(place)
    model, solver = list(MODELS)[place % 5], SOLVERS[place // 5 % 4]
    seed = place // 20
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["model"]["name"], config["solver"]["name"] = model, solver
    config["seeds"] = dict.fromkeys(config["seeds"], seed)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    summary = {name: _moved(value, rng) for name, value in _read(folder / "summary.json").items()}
    summary["model/parameters"] = MODELS[model]
    (folder / "summary.json").write_text(json.dumps(summary))
    panel = pd.read_parquet(folder / "panel.parquet")
    panel["recovered"] += rng.normal(0, panel["recovered"].std(), len(panel))
    panel.to_parquet(folder / "panel.parquet")
    manifest = _read(folder / "manifest.json")
    manifest["steps"]["align"] = f"{model}-{seed}"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    status: dict[str, Any] = {"status": "done", "run_id": f"{place:08x}"}
    if place % 50 == 7:
        status = {"status": "failed", "run_id": f"{place:08x}", "error": "training diverged"}
    (folder / "status.json").write_text(json.dumps(status))
    if place % 50 == 17:
        (folder / "summary.json").write_text('{"recovery/auc": 0.')
    if place % 50 == 27:
        (folder / "panel.parquet").unlink()


def _moved(value: Any, rng: np.random.Generator) -> Any:
    return value * (1 + rng.normal(0, 0.02)) if isinstance(value, float) else value


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


if __name__ == "__main__":
    main()
