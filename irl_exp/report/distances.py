"""How far the rewards of several runs lie from each other and from R*, on the panel they share.

STARC distances per prompt (metrics/reward_distance.py), on the reference's completions: what no
demonstration can settle, an offset per prompt and the scale, plays no part in them.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from irl_exp.metrics.reward_distance import starc, starc_matrix
from irl_exp.report.collect import DRIVERS, Axis, axes, label, ordered, seeds_apart, usual
from irl_exp.report.run import Run

# What varied, the narrowest first -> what a reader sees.
SOURCES = {
    frozenset({"initialization"}): "initialization",
    frozenset({"order"}): "order of data",
    frozenset({"initialization", "order"}): "recovery (initialization, order)",
    frozenset({"demonstrations"}): "demonstrations",
    frozenset({"alignment"}): "expert (alignment)",
    frozenset({"policy"}): "reference and R* (policy)",
    frozenset({"policy", "alignment", "demonstrations"}): "everything but recovery (policy)",
    frozenset(DRIVERS) - {"data"}: "everything but the data",
    frozenset({"data"}): "data",
    frozenset(DRIVERS): "everything (seed)",
}
SEVERAL = "several of these"
Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Pair:
    """Two runs of one configuration: their distance, and which seeds differ.

    `unshared` is what the distance would be if the errors of the two had nothing in common: their
    correlation is then the product of those with R*, so that it is sqrt((1 - rho_i rho_j) / 2).
    """

    first: str
    second: str
    configuration: str
    varied: frozenset[str]
    distance: float
    unshared: float

    @property
    def source(self) -> str:
        """What varied, in words."""
        return SOURCES.get(self.varied, SEVERAL)


@dataclass(frozen=True)
class Spread:
    """Mean and unbiased standard deviation (NaN where n = 1) of n distances."""

    mean: float
    sd: float
    n: int

    @classmethod
    def of(cls, found: Sequence[float]) -> "Spread":
        sd = float(np.std(found, ddof=1)) if len(found) > 1 else float("nan")
        return cls(float(np.mean(found)), sd, len(found))


@dataclass(frozen=True)
class Matrix:
    """Runs with one panel, and their distances.

    Attributes:
        labels: of the runs: what differs from the commonest, if there is one; "base" where nothing
            does.
        between: float64 [n, n], symmetric, 0 on the diagonal.
        to_truth: float64 [n], of each R̂ from the R* of its run.
        floor: float64 [n], of that R* from a second one on the same panel; NaN where there is none.
        one_truth: whether R* is the same for all.
    """

    digest: str
    runs: list[Run]
    axes: list[Axis]
    labels: list[str]
    between: Scores
    to_truth: Scores
    floor: Scores
    one_truth: bool

    def configuration(self, run: Run) -> str:
        return label(run, (axis for axis in self.axes if not axis.seed))

    @cached_property
    def pairs(self) -> list[Pair]:
        """Of runs that differ in seeds alone."""
        of = [self.configuration(run) for run in self.runs]
        rho = 1 - 2 * self.to_truth**2
        return [
            Pair(
                self.labels[i],
                self.labels[j],
                of[i],
                seeds_apart(self.runs[i], self.runs[j]),
                float(self.between[i, j]),
                float(np.sqrt((1 - rho[i] * rho[j]) / 2)),
            )
            for i, j in combinations(range(len(self.runs)), 2)
            if of[i] == of[j]
        ]


def matrices(runs: Sequence[Run]) -> tuple[list[Matrix], list[Run]]:
    """(one for each panel that several runs share, the runs that share theirs with none).

    A run without a panel, or with one completion a prompt, of which a distance cannot be taken, is
    in neither.
    """
    by_digest: dict[str, list[Run]] = {}
    for run in runs:
        if scores(run, "recovered") is not None and "panel_digest" in run.manifest:
            by_digest.setdefault(run.manifest["panel_digest"], []).append(run)
    shared = [_matrix(digest, among) for digest, among in by_digest.items() if len(among) > 1]
    return shared, [among[0] for among in by_digest.values() if len(among) == 1]


def alike(found: Sequence[Matrix]) -> list[list[Matrix]]:
    """Panels whose runs differ in the same ways, and nowhere in seeds alone: these go together, as
    many as there are. Every other one is by itself."""
    groups: dict[Hashable, list[Matrix]] = {}
    for matrix in found:
        key = matrix.digest if matrix.pairs else tuple(matrix.labels)
        groups.setdefault(key, []).append(matrix)
    return [*groups.values()]


def averaged(found: Sequence[Matrix]) -> Matrix:
    """The first one with distances that are means over all of these, which are `alike`."""
    return replace(
        found[0],
        between=np.mean([matrix.between for matrix in found], axis=0),
        to_truth=np.mean([matrix.to_truth for matrix in found], axis=0),
        floor=np.mean([matrix.floor for matrix in found], axis=0),
        one_truth=all(matrix.one_truth for matrix in found),
    )


def scores(run: Run, reward: str) -> Scores | None:
    """[prompts, completions] of a reward on the reference's completions in the panel."""
    if run.panel is None or reward not in run.panel.column_names:
        return None
    completions, prompts = _completions(run)
    if not prompts or len(completions) % prompts or len(completions) < 2 * prompts:
        return None
    found = run.panel[reward].to_numpy().astype(np.float64)
    return found[completions].reshape(prompts, -1)


@cache
def _completions(run: Run) -> tuple[NDArray[np.intp], int]:
    """The rows of the panel with the reference's completions, and of how many prompts these are."""
    assert run.panel is not None
    rows = np.flatnonzero(run.panel["kind"].to_numpy() == "reference")
    return rows, len(run.panel["prompt"].take(rows).unique())


def _matrix(digest: str, among: list[Run]) -> Matrix:
    named = axes(among)
    runs = ordered(among, named)
    rewards, truths, twins = (
        [scores(run, name) for run in runs] for name in ("recovered", "truth", "twin")
    )
    pairs = zip(truths, twins, strict=True)
    return Matrix(
        digest=digest,
        runs=runs,
        axes=named,
        labels=_labels(runs, named),
        between=starc_matrix(rewards),  # type: ignore[arg-type]
        to_truth=np.array([starc(a, b) for a, b in zip(rewards, truths, strict=True)]),  # type: ignore[arg-type]
        floor=np.array([float("nan") if b is None else starc(a, b) for a, b in pairs]),  # type: ignore[arg-type]
        one_truth=all(np.array_equal(truths[0], truth) for truth in truths),  # type: ignore[arg-type]
    )


def _labels(runs: Sequence[Run], named: Sequence[Axis]) -> list[str]:
    columns = {axis: [axis.of(run) for run in runs] for axis in named}
    # Where each value is there once, none is the usual one.
    common = {a: usual(c) if len({*c}) < len(c) else object() for a, c in columns.items()}
    return [
        label(run, differing).replace("=", " ") if differing else "base"
        for run in runs
        for differing in [[axis for axis in named if axis.of(run) != common[axis]]]
    ]
