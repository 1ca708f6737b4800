"""What the project costs, beside its peers: `python -m benchmarks [PART ...]`.

A part is a module of benchmarks/parts with two functions: `measure(options)` gives what is written
to benchmarks/results/PART.json (`samples` of each arm, and other facts that JSON can hold), and
`tables(found)` makes Markdown of it, which goes between the part's markers in docs/performance.md.
A part that can run on a GPU says so by DEVICES = ("cpu", "cuda"); its results there are PART-cuda.
"""

import argparse
import importlib
import pkgutil
from pathlib import Path

from benchmarks import measure

PARTS = sorted(part.name for part in pkgutil.iter_modules([str(Path(__file__).parent / "parts")]))


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure, and rewrite docs/performance.md."
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    usual = measure.Options()
    parser.add_argument("--runs", type=int, default=usual.runs, help="of each arm")
    parser.add_argument("--threads", type=int, default=usual.threads, help="of each arm")
    parser.add_argument("--device", default=usual.device, choices=["cpu", "cuda"])
    parser.add_argument("--tables", action="store_true", help="of results that are there")
    typed = parser.parse_args()
    options = measure.Options(typed.runs, typed.threads, typed.device)
    unknown = set(typed.parts) - set(PARTS)
    if unknown:
        parser.error(f"no part {', '.join(sorted(unknown))}; expected some of {', '.join(PARTS)}")
    for name in typed.parts or PARTS:
        part = importlib.import_module(f"benchmarks.parts.{name}")
        called = measure.label(name, options.device)
        if options.device not in getattr(part, "DEVICES", ("cpu",)):
            print(f"{name}: not on {options.device}")
            continue
        if not typed.tables:
            try:
                found = part.measure(options)
            except measure.Skip as reason:
                print(f"{name}: {reason}")
                continue
            about = {"runs": options.runs, "threads": options.threads}
            where = measure.machine(options.device)
            measure.save(called, {"part": name, "machine": where, **about, **found})
        known = measure.load(called)
        text = f"{part.tables(known)}\n\n{measure.conditions(known)}"
        measure.replace(called, text)
        print(f"{called}\n\n{text}\n", flush=True)


if __name__ == "__main__":
    main()
