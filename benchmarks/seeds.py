"""What ten seeds of a solver on frozen features cost, beside one.

    python -m benchmarks.seeds [SOLVER ...] [--store DIR] [--runs N]

The default study is computed up to its demonstrations in the store DIR (unless it is there). Then,
on a fresh copy of it each time, recovery and evaluation of one seed and of ten, in turn: sweeps
whose runs differ in `seeds.recovery` alone. Without the control `oracle`, which trains a body for
every seed and is no such solver. Prints one JSON object: of each sweep the seconds of all that is
recovery or evaluation of R̂, those of controls (with the second R*), and of the whole process.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

COUNTS = (1, 10)
WORK = ("recover", "features_", "scores_", "evaluate")


def main() -> None:
    parser = argparse.ArgumentParser(description="What ten seeds cost, beside one.")
    parser.add_argument("solvers", nargs="*", default=["svm", "bayesian"], metavar="SOLVER")
    parser.add_argument("--store", type=Path, default=Path("outputs/benchmarks/seeds"))
    parser.add_argument("--runs", type=int, default=5, help="of each sweep")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        study([f"hydra.run.dir={place}/run", "until=demonstrate"], arguments.store)
    found: dict[str, Any] = {}
    for solver in arguments.solvers:
        samples: dict[int, list[dict[str, float]]] = {count: [] for count in COUNTS}
        for _ in range(arguments.runs):
            for count in COUNTS:
                samples[count].append(sweep(solver, count, arguments.store))
                print(solver, count, samples[count][-1], file=sys.stderr, flush=True)
        one, ten = (statistics.median(s["seconds"] for s in samples[count]) for count in COUNTS)
        found[solver] = {"samples": samples, "ratio": ten / one}
    print(json.dumps(found))


def sweep(solver: str, count: int, store: Path) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as place:
        fresh, runs = Path(place, "store"), Path(place, "runs")
        shutil.copytree(store, fresh)
        seeds = ",".join(map(str, range(count)))
        typed = ["-m", f"solver={solver}", "~solver@evaluation.controls.oracle", "until=evaluate"]
        start = time.perf_counter()
        study([*typed, f"seeds.recovery={seeds}", f"hydra.sweep.dir={runs}"], fresh)
        wall = time.perf_counter() - start
        summaries = [json.loads(path.read_text()) for path in runs.glob("*/summary.json")]
    assert len(summaries) == count
    seconds = {
        name.removeprefix("time/"): sum(summary.get(name, 0.0) for summary in summaries)
        for name in set().union(*summaries)
        if name.startswith("time/") and "total" not in name
    }
    work = sum(value for name, value in seconds.items() if name.startswith(WORK))
    return {"seconds": work, "others": sum(seconds.values()) - work, "wall_seconds": wall}


def study(typed: list[str], store: Path) -> None:
    command = [sys.executable, "-m", "irl_exp", f"paths.store={store.absolute()}", *typed]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)


if __name__ == "__main__":
    main()
