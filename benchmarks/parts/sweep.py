"""What a sweep costs beside its steps, and what the store saves it.

`overhead`: what one more run costs that finds all its steps in the store, in one process with the
others: the difference between a sweep of some and a sweep of one. `grid`: sizes x solvers x seeds
of recovery of the smoke study, with a store. Without one it would take what each run's steps took,
whoever computed them; that this sum is right, runs show that are made with nothing to find.
"""

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.measure import Arm, Options, Sample, interleaved, once, spread, table
from benchmarks.parts.start import place

STUDY = ("+debug=smoke", "until=evaluate")
MANY = 6
GRID = {
    "model": ("neox-50k", "neox-100k", "neox-400k", "neox-1m5"),
    "solver": ("logistic", "asymmetric", "svm", "max_entropy"),
    "seed": ("0", "1", "2", "3", "4"),
}
SEEDS = "seeds=recovery_only"  # with all seeded anew, runs could share steps among solvers alone
# Of the grid, and made without a store too.
ALONE = (("neox-50k", "asymmetric", "0"), ("neox-100k", "svm", "1"))


def measure(options: Options) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        runs_of(folder)  # fills the store, and is the warm-up
        overhead = Arm("overhead", ["-m", "benchmarks.parts.sweep", "overhead", folder])
        samples = interleaved([overhead], options)
    grid = once(Arm("grid", ["-m", "benchmarks.parts.sweep", "grid"]), options.threads)
    return {"samples": samples, "grid": grid}


def tables(found: dict[str, Any]) -> str:
    samples, grid = found["samples"]["overhead"], found["grid"]
    parts = {"seconds": "all", "steps": "its steps", "page": "its page", "rest": "the rest"}
    rows = [[what, spread(samples, name)] for name, what in parts.items()]
    alone = ", ".join(f"{one['seconds']:.1f} ({one['sum']:.1f})" for one in grid["alone"])
    return "\n\n".join(
        [
            table(("one more run that finds everything", "seconds"), rows),
            f"{grid['runs']} runs, {' x '.join(str(len(values)) for values in GRID.values())} "
            f"{', '.join(GRID)} (of recovery): steps of {grid['with_store']:.0f} s with the store "
            f"and of {grid['without']:.0f} s without, {grid['without'] / grid['with_store']:.2f} "
            f"times as long. Made without a store, and by that sum: {alone} s.",
        ]
    )


# --- arms -----------------------------------------------------------------------------------------


def overhead(folder: str) -> Sample:
    """Of a run in the middle of a sweep: the first one also imports."""
    took = {}
    for many in (1, MANY):
        start = time.perf_counter()
        tags = ",".join(f"[{number}]" for number in range(many))
        runs = runs_of(folder, "-m", f"tags={tags}", "hydra.sweep.subdir=${hydra.job.num}")
        took[many] = time.perf_counter() - start
    later = [run for run in runs if run.name != "0"]
    seconds = (took[MANY] - took[1]) / len(later)
    steps = sum(map(seconds_of_steps, later)) / len(later)
    page = sum(map(seconds_of_page, later)) / len(later)
    return {"seconds": seconds, "steps": steps, "page": page, "rest": seconds - steps - page}


def grid() -> Sample:
    with tempfile.TemporaryDirectory() as folder:
        words = [f"{key}={','.join(values)}" for key, values in GRID.items()]
        runs = runs_of(folder, "-m", SEEDS, *words)
        without = {tuple(choices(run)): sum(seconds_computing(run)) for run in runs}
        with_store = sum(map(seconds_of_steps, runs))
    alone = [{"seconds": seconds_alone(one), "sum": without[one]} for one in ALONE]
    total = sum(without.values())
    return {"runs": len(runs), "with_store": with_store, "without": total, "alone": alone}


def seconds_alone(values: Sequence[str]) -> float:
    """Of the steps of one run of the grid that finds nothing."""
    with tempfile.TemporaryDirectory() as folder:
        words = [f"{key}={value}" for key, value in zip(GRID, values, strict=True)]
        return sum(map(seconds_of_steps, runs_of(folder, SEEDS, *words)))


# --- runs -----------------------------------------------------------------------------------------


def runs_of(folder: str, *words: str) -> list[Path]:
    """The directories of the runs of a command that keeps its store in the folder."""
    made = Path(folder, f"runs-{time.time_ns()}")
    where = [f"hydra.run.dir={made}/0", f"hydra.sweep.dir={made}", f"paths.store={folder}/store"]
    line = [place("irl-exp"), *words, *STUDY, *where]
    subprocess.run(line, check=True, stdout=subprocess.DEVNULL)
    return [path.parent for path in sorted(made.glob("*/summary.json"))]


def seconds_of_steps(run: Path) -> float:
    summary: dict[str, float] = json.loads((run / "summary.json").read_text())
    return summary["time/total_seconds"]


def seconds_of_page(run: Path) -> float:
    """It is drawn once all numbers are there."""
    return (run / "report.md").stat().st_mtime - (run / "summary.json").stat().st_mtime


def seconds_computing(run: Path) -> list[float]:
    """What each step of a run took, in whatever run it was computed."""
    manifest = json.loads((run / "manifest.json").read_text())
    made = [
        next(Path(manifest["store"]).glob(f"*/{fingerprint}/manifest.json"))
        for fingerprint in manifest["steps"].values()
    ]
    return [json.loads(path.read_text())["seconds"] for path in made]


def choices(run: Path) -> list[str]:
    """Where in the grid it is."""
    words = (run / "overrides.yaml").read_text()
    typed = dict(json.loads(line[2:]).split("=", 1) for line in words.splitlines())
    return [typed[key] for key in GRID]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["overhead", "grid"])
    parser.add_argument("folder", nargs="?", help="whose store has what a run needs")
    typed = parser.parse_args()
    print(json.dumps(overhead(typed.folder) if typed.what == "overhead" else grid()))


if __name__ == "__main__":
    main()
