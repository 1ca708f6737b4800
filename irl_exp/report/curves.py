"""What the numbers do along a value that runs differ in: means over seeds, with t-intervals."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from irl_exp.report.collect import (
    SIZE,
    Axis,
    Mean,
    axes,
    is_number,
    label,
    numbers,
    order,
    ordered,
    value,
)
from irl_exp.report.run import Run

# Name in the summary -> what a reader sees.
MEASURES = {
    "recovery/pair_accuracy": "within-prompt accuracy",
    "recovery/starc": "STARC distance",
    "recovery/auc": "AUC",
    "recovery/identified_fraction": "identified pairs, share",
    "recovery/ambiguous_fraction": "ambiguous pairs, share",
}
# Beside them along what decides R* or the expert, lest that be taken for something of recovery's.
BEFORE = {
    "policy/aligned/optimality": "optimality of the expert",
    "ground_truth/auc": "AUC of R*",
}
UPSTREAM = ("dataset", "model", "ground_truth", "rlhf")
FLOOR = "recovery/starc_floor"
# What a value is to bring about -> the number that says what came of it, and what a reader sees.
MEASURED = {
    "rlhf.kl_coef": ("policy/aligned/kl", "KL of the expert, nats, as measured"),
    "model.name": (SIZE, "parameters of the model"),
}


@dataclass(frozen=True)
class Point:
    """One value of the axis: where it stands, the mean there, and each run's own (x, y)."""

    at: Mean
    mean: Mean
    runs: list[tuple[float, float]]


@dataclass(frozen=True)
class Curves:
    """The measures along one axis.

    Attributes:
        name: what the file is called.
        x: what stands on the axis, in words.
        lines: measure -> label of what else differs -> points in order.
        floor: STARC's: the distance of R* from a second one, mean over all runs.
    """

    name: str
    x: str
    lines: dict[str, dict[str, list[Point]]]
    floor: float | None

    @property
    def logarithmic(self) -> bool:
        """Whether the values span more than a decade."""
        found = [p.at.mean for lines in self.lines.values() for ps in lines.values() for p in ps]
        return min(found) > 0 and max(found) > 10 * min(found)


def curves(runs: Sequence[Run]) -> list[Curves]:
    """Of each number that is no seed and of which there are several values; and against what was
    measured, where MEASURED knows that. A run without a number there is in none of its curves."""
    named = axes(runs)
    found = []
    for axis in named:
        if axis.seed:
            continue
        there = [run for run in runs if is_number(axis.of(run))]
        if there:
            found.append(_along(there, named, axis, axis.name, axis.name, None))
        if axis.key in MEASURED:
            name, words = MEASURED[axis.key]
            found.append(_along(there or runs, named, axis, name.replace("/", "-"), words, name))
    return [each for each in found if each.lines]


def _along(
    runs: Sequence[Run],
    named: Sequence[Axis],
    axis: Axis,
    name: str,
    words: str,
    measured: str | None,
) -> Curves:
    """`measured`: the number that is to stand on the axis in the place of the value itself."""
    others = [other for other in named if other != axis and not other.seed]
    places: dict[str, dict[Hashable, list[Run]]] = {}
    for run in ordered(runs, others):
        places.setdefault(label(run, others), {}).setdefault(axis.of(run), []).append(run)
    lines: dict[str, dict[str, list[Point]]] = {}
    known = order(axis, runs)  # of numbers, their own order
    rank = known.index if axis.name == "model" else float
    before = BEFORE if axis.group in UPSTREAM else {}
    for measure in MEASURES | before:
        for other, by_value in places.items():
            ats = sorted(by_value, key=rank)  # type: ignore[arg-type]
            points = [_point(by_value[at], measure, at, measured) for at in ats]
            there = [point for point in points if point]
            if len(there) > 1:  # one value makes no line
                lines.setdefault(measure, {})[other] = there
    floor = Mean.of(numbers(runs, FLOOR))
    return Curves(name, words, lines, floor.mean if floor else None)


def _point(runs: Sequence[Run], measure: str, at: Hashable, measured: str | None) -> Point | None:
    found = [
        (x, y)
        for run in runs
        if (x := value(run, measured) if measured else float(at)) is not None  # type: ignore[arg-type]
        and (y := value(run, measure)) is not None
    ]
    means = [Mean.of(column) for column in zip(*found, strict=True)]
    return Point(means[0], means[1], found) if means and means[0] and means[1] else None
