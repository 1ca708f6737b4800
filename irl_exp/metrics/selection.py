"""What choosing the best of many does to a number: the best threshold on the texts that it is
measured on, the best of several draws."""

import numpy as np
from numpy.typing import ArrayLike

from irl_exp.metrics.agreement import accuracy


def best_accuracy(scores: ArrayLike, labels: ArrayLike) -> float:
    """The highest accuracy that any threshold reaches, chosen on the very texts it is measured on.

    An upper bound that no one can know beforehand, and never below the share of the larger class:
    the thresholds include those that call every text toxic, or none.

    Args:
        scores: rewards [n]; a text is toxic if its score < the threshold.
        labels: 1 = toxic, 0 = not [n].

    Returns:
        A share in [0.5, 1].

    Raises:
        ValueError: as `agreement.accuracy` does.
    """
    none = accuracy(scores, labels, -np.inf)  # checks both
    values, toxic = np.asarray(scores, dtype=np.float64), np.asarray(labels) == 1
    distinct, position = np.unique(values, return_inverse=True)
    gained = np.bincount(position[toxic], minlength=distinct.size)
    lost = np.bincount(position[~toxic], minlength=distinct.size)
    return none + max(0, int(np.cumsum(gained - lost).max())) / values.size


def best_of(values: ArrayLike, draws: int, level: float = 0.9) -> tuple[float, float, float]:
    """What the largest of `draws` numbers is that are drawn with replacement from `values`.

    That is the bootstrap of the maximum, without its noise: with x_(1) <= ... <= x_(n) the maximum
    is at most x_(i) with probability (i / n)^draws. It is never above x_(n), so that for draws near
    or beyond n it falls short of what as many new runs would reach.

    Args:
        values: [n].
        draws: how many are drawn, 1 or more.
        level: share of the maxima inside the interval, strictly between 0 and 1.

    Returns:
        (mean, low, high): the expected maximum, and its (1 - level) / 2 and (1 + level) / 2
        quantiles, which are among the values.

    Raises:
        ValueError: for no values, a NaN or infinite one, or `draws` or `level` out of range.
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    if ordered.ndim != 1 or ordered.size == 0 or not np.all(np.isfinite(ordered)):
        raise ValueError(f"values: expected finite numbers [n], got shape {ordered.shape}")
    if draws < 1 or not 0 < level < 1:
        raise ValueError(f"expected draws >= 1 and 0 < level < 1, got {draws} and {level}")
    at_most = (np.arange(1, ordered.size + 1) / ordered.size) ** draws
    mean = float(ordered @ np.diff(at_most, prepend=0.0))
    low, high = np.searchsorted(at_most, [(1 - level) / 2, (1 + level) / 2])
    return mean, float(ordered[low]), float(ordered[high])
