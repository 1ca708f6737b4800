"""What one choice does, all else equal: differences between runs that share their seeds."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from irl_exp.metrics.statistics import holm, student_p
from irl_exp.report.collect import Axis, axes, order, seeds, shown, value
from irl_exp.report.run import Run

Cell = tuple[tuple[Hashable, ...], tuple[Hashable, ...]]  # (what else was chosen, the seeds)


@dataclass(frozen=True)
class Comparison:
    """One value of an axis less the first of its values, in runs that differ in nothing else.

    Attributes:
        name: `solver: hinge less asymmetric`.
        pairs: how many pairs of runs that is.
        differences: measure -> a difference for each choice of seeds, the mean over all else that
            was varied, which is why they are as independent as the seeds are.
    """

    name: str
    pairs: int
    differences: Mapping[str, list[float]]


def comparisons(runs: Sequence[Run], measures: Sequence[str]) -> list[Comparison]:
    """Of every axis that is no seed, every value against the first one (see `order`)."""
    choices = [axis for axis in axes(runs) if not axis.seed]
    found = []
    for axis in choices:
        first, *rest = order(axis, runs)
        base = _cells(runs, axis, first, choices)
        for other in rest:
            cells = _cells(runs, axis, other, choices)
            pairs = {cell: (run, base[cell]) for cell, run in cells.items() if cell in base}
            if pairs:
                name = f"{axis.name}: {shown(other)} less {shown(first)}"
                differences = {measure: _differences(pairs, measure) for measure in measures}
                found.append(Comparison(name, len(pairs), differences))
    return found


def _cells(
    runs: Sequence[Run], axis: Axis, chosen: Hashable, choices: Sequence[Axis]
) -> dict[Cell, Run]:
    """The runs with this value of the axis, by all else in which runs differ."""
    others = [other for other in choices if other != axis]
    return {
        (tuple(other.of(run) for other in others), tuple(seeds(run).values())): run
        for run in runs
        if axis.of(run) == chosen
    }


def _differences(pairs: Mapping[Cell, tuple[Run, Run]], measure: str) -> list[float]:
    by_seeds: dict[tuple[Hashable, ...], list[float]] = {}
    for (_, drawn), (run, base) in pairs.items():
        mine, other = value(run, measure), value(base, measure)
        if mine is not None and other is not None:
            by_seeds.setdefault(drawn, []).append(mine - other)
    return [float(np.mean(found)) for found in by_seeds.values()]


def corrected(columns: Sequence[Sequence[float]]) -> list[float | None]:
    """Of each list of differences, Holm's p for all of them together that their mean is 0; None
    where there are fewer than two."""
    known = [place for place, found in enumerate(columns) if len(found) > 1]
    p_values = holm([student_p(columns[place]) for place in known])
    answers: list[float | None] = [None] * len(columns)
    for place, p in zip(known, p_values.tolist(), strict=True):
        answers[place] = p
    return answers
