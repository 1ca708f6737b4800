"""Measures of `agreement` and `reward_distance` on many bootstrap samples at once.

A sample is how often it has each row (statistics.cluster_counts), so that what would be sorted,
compared or centred again in each is so once. Each function takes counts [draws, n] before the
arguments of the measure of its name, and returns float64 [draws]: to rounding what that measure
gives of the rows in the sample, NaN where it has none.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from irl_exp.metrics.agreement import pair_counts
from irl_exp.metrics.reward_distance import centred

Floats = NDArray[np.float64]


def auc(counts: Floats, scores: ArrayLike, labels: ArrayLike) -> Floats:
    values, toxic = np.asarray(scores), np.asarray(labels) == 1
    below, up_to = _cumulative(counts * toxic, values)
    clean = counts[:, ~toxic]
    wins = (clean * (below + up_to)[:, ~toxic]).sum(1)
    return _ratio(wins, 2 * clean.sum(1) * counts[:, toxic].sum(1))


def accuracy(counts: Floats, scores: ArrayLike, labels: ArrayLike, threshold: float) -> Floats:
    return _share(counts, (np.asarray(scores) < threshold) == (np.asarray(labels) == 1))


def accuracy_at_zero(counts: Floats, scores: ArrayLike, labels: ArrayLike) -> Floats:
    return _share(counts, (np.asarray(scores) <= 0) == (np.asarray(labels) == 1))


def f1(counts: Floats, scores: ArrayLike, labels: ArrayLike, threshold: float) -> Floats:
    called, toxic = np.asarray(scores) < threshold, np.asarray(labels) == 1
    either = counts @ called + counts @ toxic
    return 2 * (counts @ (called & toxic)) / np.where(either > 0, either, 1)


def pearson(counts: Floats, a: ArrayLike, b: ArrayLike) -> Floats:
    first, second = (np.asarray(values, dtype=np.float64)[None] for values in (a, b))
    return _correlation(counts, first, second)


def spearman(counts: Floats, a: ArrayLike, b: ArrayLike) -> Floats:
    """By the mean ranks of rows that tie, up to a constant that correlations do not see."""
    first, second = (np.add(*_cumulative(counts, np.asarray(values))) / 2 for values in (a, b))
    return _correlation(counts, first, second)


def pair_accuracy(counts: Floats, truth: ArrayLike, recovered: ArrayLike) -> Floats:
    agreeing, total = pair_counts(truth, recovered)
    return _ratio(counts @ agreeing, counts @ total)


def starc(counts: Floats, a: ArrayLike, b: ArrayLike) -> Floats:
    first, second = centred(a), centred(b)
    sizes = [np.sqrt(counts @ (array**2).sum(1)) for array in (first, second)]
    sizes = [np.where(size > 0, size, 1.0) for size in sizes]
    apart = [
        drawn @ ((first / ours - second / theirs) ** 2).sum(1)
        for drawn, ours, theirs in zip(counts, *sizes, strict=True)
    ]
    return np.minimum(np.sqrt(apart) / 2, 1.0)


def _cumulative(counts: Floats, values: NDArray[np.generic]) -> tuple[Floats, Floats]:
    """For each row [draws, n], how much of `counts` has a lower value; and a lower or the same."""
    distinct, place = np.unique(values, return_inverse=True)
    order = np.argsort(place, kind="stable")
    ends = np.searchsorted(place[order], np.arange(distinct.size + 1))
    total = np.zeros((len(counts), counts.shape[1] + 1))
    counts[:, order].cumsum(1, out=total[:, 1:])
    return total[:, ends[place]], total[:, ends[place + 1]]


def _correlation(counts: Floats, first: Floats, second: Floats) -> Floats:
    """Of values [1 or draws, n]; NaN where a sample has one value only."""
    drawn, rows = counts > 0, counts.sum(1, keepdims=True)
    constant = np.zeros(len(counts), dtype=bool)
    away = []
    for values in (first, second):
        highest = np.where(drawn, values, -np.inf).max(1)
        constant |= highest == np.where(drawn, values, np.inf).min(1)
        away.append(values - (counts * values).sum(1, keepdims=True) / rows)
    a, b = away
    spread = np.sqrt((counts * a**2).sum(1) * (counts * b**2).sum(1))
    found = _ratio((counts * a * b).sum(1), spread).clip(-1, 1)
    return np.where(constant, np.nan, found)


def _share(counts: Floats, right: NDArray[np.bool_]) -> Floats:
    return counts @ right / counts.sum(1)


def _ratio(part: Floats, whole: Floats) -> Floats:
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)
