"""How soon a command answers: its help, and the first line of work of a run."""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.measure import Arm, Options, interleaved, spread, table

COMMANDS = ("irl-exp", "irl-score", "irl-report", "irl-store", "irl-export")
# What a run says when it begins with a step, and what the last one says.
WORK = ": computing"


def measure(options: Options) -> dict[str, Any]:
    arms = [Arm(f"{name} --help", ["-m", "benchmarks.parts.start", name]) for name in COMMANDS]
    first = Arm("irl-exp, first line of work", ["-m", "benchmarks.parts.start", "work"])
    return {"samples": interleaved([*arms, first], options)}


def tables(found: dict[str, Any]) -> str:
    rows = [[name, spread(samples)] for name, samples in found["samples"].items()]
    return table(("from the command to", "seconds"), rows)


# --- arms -----------------------------------------------------------------------------------------


def help_of(command: str) -> float:
    start = time.perf_counter()
    subprocess.run([place(command), "--help"], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def first_work() -> float:
    """Of a run that has nothing to find, and ends with its first step."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["+debug=smoke", "until=curate", f"hydra.run.dir={folder}/run"]
        line = [place("irl-exp"), *words, f"paths.store={folder}/store"]
        start = time.perf_counter()
        with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            found = next(time.perf_counter() for said in process.stdout if WORK in said)
            process.stdout.read()
    return found - start


def place(command: str) -> str:
    """The command of the environment that measures."""
    return str(Path(sys.executable).with_name(command))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=[*COMMANDS, "work"])
    what = parser.parse_args().what
    for _ in range(2):  # the first time is the warm-up: files are read from disk
        seconds = first_work() if what == "work" else help_of(what)
    print(json.dumps({"seconds": seconds}))


if __name__ == "__main__":
    main()
