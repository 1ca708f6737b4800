"""Does the report name what was planted in R*? A table in Markdown.

    python docs/studies/audit.py RUN... [--top 3]

RUN are run directories, or sweeps of them, as far as until=interpret: with a word planted, with a
bonus for length, and with nothing. Of each kind of run, and of each of the two terms, prints in how
many the term is among the first findings of the report ("What stands out": it rewards the word, or
length), and the share with its exact 95 % interval (Clopper and Pearson 1934); and in how many the
length stands there in either direction, rewarded or punished.
"""

import argparse
from collections import defaultdict
from pathlib import Path
from typing import Any

from scipy.stats import binomtest

from irl_exp.report.run import Run, number

WORD = "today"


def planted(config: dict[str, Any]) -> str:
    """What a run's R* was given besides what it had."""
    truth = config["ground_truth"]
    terms = {
        f'the word "{truth.get("word")}"': truth.get("word_bonus", 0),
        "length": truth.get("length_bonus", 0),
    }
    return " and ".join(f"{name}, {bonus:g} sd" for name, bonus in terms.items() if bonus) or "–"


def named(run: Run, top: int) -> tuple[bool, bool, bool]:
    """Whether R̂, by the first findings of a run, rewards the word, rewards length, and rewards or
    punishes length."""
    assert run.findings is not None
    first = run.findings[run.findings["stands_out"]].head(top)
    rewarded, either = (
        set(zip(rows["kind"], rows["name"], strict=True))
        for rows in (first[first["correlation"] > 0], first)
    )
    word, length = ("word", run.config["ground_truth"].get("word", WORD)), ("factor", "length")
    return word in rewarded, length in rewarded, length in either


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--top", type=int, default=3)
    arguments = parser.parse_args()
    places = {path.parent for run in arguments.runs for path in run.glob("**/findings.parquet")}
    kinds: dict[str, list[tuple[bool, ...]]] = defaultdict(list)
    for run in map(Run.read, sorted(places)):
        kinds[planted(run.config)].append(named(run, arguments.top))
    print("| planted | runs | rewards the word | rewards length | rewards or punishes length |")
    print("|---|---|---|---|---|")
    for kind, answers in sorted(kinds.items()):
        cells = [share(sum(column), len(answers)) for column in zip(*answers, strict=True)]
        print(f"| {kind} | {len(answers)} | {' | '.join(cells)} |")


def share(k: int, n: int) -> str:
    interval = binomtest(k, n).proportion_ci(0.95, method="exact")
    return f"{k} [{number(float(interval.low))}, {number(float(interval.high))}]"


if __name__ == "__main__":
    main()
