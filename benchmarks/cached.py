"""Whether a process that makes hundreds of runs grows.

    python -m benchmarks.cached [--runs 500] [--figure docs/images/cached_runs.png]

One process makes a sweep of runs of the smoke study that find all their steps in the store. When
each has ended, its resident memory and its open files are read from /proc. Prints both at the
beginning and at the end, and what one more run costs: the slope of a line through the second half,
with its 95 % interval (ordinary least squares).
"""

import argparse
import os
import subprocess
import tempfile
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from scipy import stats

from benchmarks.parts.start import place

STUDY = ("+debug=smoke", "until=evaluate", "trainer.threads=1")
PAGE = os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    parser = argparse.ArgumentParser(description="Whether a process of many runs grows.")
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--figure", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = watched(Path(folder), arguments.runs)
    for name, unit, column in (("memory", "MiB", 1), ("open files", "", 2)):
        half = found[len(found) // 2 :]
        line = stats.linregress(half[:, 0], half[:, column])
        width = stats.t.ppf(0.975, len(half) - 2) * line.stderr
        print(
            f"{name}: {found[0, column]:.1f} after {found[0, 0]:.0f} runs, {found[-1, column]:.1f} "
            f"after {found[-1, 0]:.0f} {unit}; one more run: {line.slope:.4f} ± {width:.4f} {unit}"
        )
    if arguments.figure:
        draw(found, arguments.figure)


def watched(folder: Path, runs: int) -> np.ndarray:
    """A row for each run that ended: how many had, MiB, open files."""
    line = [place("irl-exp"), *STUDY, f"paths.store={folder}/store"]
    subprocess.run([*line, f"hydra.run.dir={folder}/first"], check=True, stdout=subprocess.DEVNULL)
    tags = ",".join(f"[{number}]" for number in range(runs))
    where = [f"hydra.sweep.dir={folder}/sweep", "hydra.sweep.subdir=${hydra.job.num}"]
    rows: list[tuple[float, float, float]] = []
    with subprocess.Popen(
        [*line, "-m", f"tags={tags}", *where], stdout=subprocess.DEVNULL
    ) as process:
        seen = Path("/proc", str(process.pid))
        while process.poll() is None:
            ended = sum(1 for _ in folder.glob("sweep/*/report.md"))
            if ended and (not rows or ended > rows[-1][0]):
                pages = int((seen / "statm").read_text().split()[1])
                rows.append((ended, pages * PAGE / 2**20, len(os.listdir(seen / "fd"))))
            time.sleep(0.2)
    if process.returncode:
        raise SystemExit(process.returncode)
    return np.array(rows)


def draw(found: np.ndarray, path: Path) -> None:
    figure, (memory, files) = plt.subplots(2, 1, sharex=True, figsize=(6, 4), layout="constrained")
    memory.plot(found[:, 0], found[:, 1])
    memory.set_ylabel("resident memory, MiB")
    memory.set_ylim(bottom=0)
    files.plot(found[:, 0], found[:, 2])
    files.set_ylabel("open files")
    files.set_ylim(bottom=0)
    files.set_xlabel("runs that ended, in one process")
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
