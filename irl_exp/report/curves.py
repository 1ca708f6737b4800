"""What the numbers do along a value that runs differ in: means over seeds, with t-intervals."""

from collections.abc import Sequence
from dataclasses import dataclass

from irl_exp.report.collect import Axis, Mean, axes, is_number, label, numbers, ordered, value
from irl_exp.report.run import Run

# Name in the summary -> what a reader sees.
MEASURES = {
    "recovery/pair_accuracy": "within-prompt accuracy",
    "recovery/starc": "STARC distance",
    "recovery/auc": "AUC",
    "recovery/identified_fraction": "identified pairs, share",
    "recovery/ambiguous_fraction": "ambiguous pairs, share",
}
FLOOR = "recovery/starc_floor"
# What a value is to bring about -> the number that says what came of it, and what a reader sees.
MEASURED = {"rlhf.kl_coef": ("policy/aligned/kl", "KL of the expert, nats, as measured")}


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
        there = [run for run in runs if is_number(axis.of(run))]
        if axis.seed or not there:
            continue
        found.append(_along(there, named, axis, axis.name, axis.name, None))
        if axis.key in MEASURED:
            name, words = MEASURED[axis.key]
            found.append(_along(there, named, axis, name.replace("/", "-"), words, name))
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
    places: dict[str, dict[float, list[Run]]] = {}
    for run in ordered(runs, others):
        at = float(axis.of(run))  # type: ignore[arg-type]
        places.setdefault(label(run, others), {}).setdefault(at, []).append(run)
    lines: dict[str, dict[str, list[Point]]] = {}
    for measure in MEASURES:
        for other, by_value in places.items():
            points = [_point(by_value[at], measure, at, measured) for at in sorted(by_value)]
            there = [point for point in points if point]
            if len(there) > 1:  # one value makes no line
                lines.setdefault(measure, {})[other] = there
    floor = Mean.of(numbers(runs, FLOOR))
    return Curves(name, words, lines, floor.mean if floor else None)


def _point(runs: Sequence[Run], measure: str, at: float, measured: str | None) -> Point | None:
    found = [
        (x, y)
        for run in runs
        if (x := value(run, measured) if measured else at) is not None
        and (y := value(run, measure)) is not None
    ]
    means = [Mean.of(column) for column in zip(*found, strict=True)]
    return Point(means[0], means[1], found) if means and means[0] and means[1] else None
