"""The question of a sweep over models: does a larger one hide its reward better?"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from irl_exp.report.collect import (
    SIZE,
    Mean,
    axes,
    configurations,
    numbers,
    order,
    seeds,
    value,
)
from irl_exp.report.comparisons import corrected
from irl_exp.report.run import Run, number

# Name in the summary -> what a reader sees. Identified numbers first; of STARC, less is nearer.
RECOVERED = {
    "recovery/starc": "STARC",
    "recovery/pair_accuracy": "pair accuracy",
    "recovery/auc": "AUC",
}
# What else comes with a size, and is no matter of recovery.
BEFORE = {
    "ground_truth/auc": "AUC of R*",
    "policy/aligned/optimality": "optimality",
    "policy/aligned/kl": "KL, nats",
    "recovery/starc_floor": "floor",
}


@dataclass(frozen=True)
class Trend:
    """How one measure of one configuration changes with size.

    Attributes:
        slopes: for each choice of seeds under which there are several sizes, the least-squares
            slope of the measure on the decimal logarithm of parameters.
        p: that their mean is 0, by Student's t-test, Holm's correction for all configurations of
            the measure; None for fewer than two.
    """

    slopes: list[float]
    p: float | None

    @property
    def mean(self) -> Mean | None:
        return Mean.of(self.slopes)

    @property
    def sign(self) -> int:
        """1 or -1 where the trend is beyond what the seeds draw (p < 0.05), else 0."""
        return int(np.sign(np.mean(self.slopes))) if self.p is not None and self.p < 0.05 else 0


NO_TREND = Trend([], None)


@dataclass(frozen=True)
class Sizes:
    """Runs with models of several sizes.

    Attributes:
        models: option of `model` -> (parameters, its runs), the smallest first.
        configurations: what else differs -> its runs.
        trends: measure of RECOVERED and BEFORE -> configuration -> its trend.
    """

    models: dict[str, tuple[int, list[Run]]]
    configurations: dict[str, list[Run]]
    trends: dict[str, dict[str, Trend]]

    @classmethod
    def of(cls, runs: Sequence[Run]) -> "Sizes | None":
        """None where all models are of one size."""
        sized = [run for run in runs if value(run, SIZE) is not None]
        named = {axis.name: axis for axis in axes(sized)}
        model = named.pop("model", None)
        if model is None or len({value(run, SIZE) for run in sized}) < 2:
            return None
        models = {}
        for option in order(model, sized):
            mine = [run for run in sized if model.of(run) == option]
            models[str(option)] = (int(np.mean(numbers(mine, SIZE))), mine)
        groups = configurations(sized, list(named.values()))
        trends = {measure: _trends(groups, measure) for measure in RECOVERED | BEFORE}
        return cls(models, groups, trends)

    def answer(self) -> str:
        """The question and what these runs say to it, in words."""
        sizes = [f"{parameters:,}" for parameters, _ in self.models.values()]
        parts = [
            f"**Does a larger model hide its reward better?** {len(sizes)} sizes, {sizes[0]} to "
            f"{sizes[-1]} parameters."
        ]
        parts += [_sentence(name, trend) for name, trend in self.trends["recovery/starc"].items()]
        beside = [
            f"{words} by {_per_tenfold(trend)}"
            for measure, words in list(BEFORE.items())[:2]
            for trend in [_pooled(self.trends[measure])]
            if trend
        ]
        if beside:
            parts.append(
                f"What recovery starts from changes, too, for each tenfold: {', '.join(beside)}. "
                "Part of a trend may be theirs."
            )
        return " ".join(parts)


def _trends(groups: dict[str, list[Run]], measure: str) -> dict[str, Trend]:
    slopes = {name: _slopes(runs, measure) for name, runs in groups.items()}
    p_values = corrected(list(slopes.values()))
    found = zip(slopes.items(), p_values, strict=True)
    return {name: Trend(of, p) for (name, of), p in found if of}


def _slopes(runs: Sequence[Run], measure: str) -> list[float]:
    by_seeds: dict[tuple[object, ...], list[tuple[float, float]]] = {}
    for run in runs:
        size, found = value(run, SIZE), value(run, measure)
        if size and found is not None:
            point = (float(np.log10(size)), found)
            by_seeds.setdefault(tuple(seeds(run).values()), []).append(point)
    curves = [np.array(points).T for points in by_seeds.values()]
    return [float(np.polyfit(x, y, 1)[0]) for x, y in curves if np.ptp(x) > 0]


def _pooled(trends: dict[str, Trend]) -> Mean | None:
    """Of numbers that configurations share, such as an expert's: the first that has any."""
    return next((trend.mean for trend in trends.values()), None)


def _per_tenfold(mean: Mean) -> str:
    return f"{mean.mean:+.3f}" + (f" ± {number(mean.high - mean.mean)}" if mean.n > 1 else "")


def _sentence(name: str, trend: Trend) -> str:
    mean = trend.mean
    assert mean is not None
    seeds_said = f"n = {mean.n} seed{'s' if mean.n > 1 else ''}"
    verdict = {
        -1: "the larger the model, the nearer R̂ comes to R*",
        1: "the larger the model, the farther R̂ stays from R*",
        0: "no trend that these seeds can show",
    }[trend.sign]
    where = "" if name == "all runs" else f" ({name})"
    return (
        f"STARC{where} changes by {_per_tenfold(mean)} for each tenfold of parameters, "
        f"{seeds_said}: {verdict}."
    )
