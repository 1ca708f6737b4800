"""How sure a number is: intervals and tests over prompts within one run, intervals over seeds."""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special  # `scipy.stats` takes a second to import

# Numbers of a part of `cluster_counts`: 16 MiB.
HELD = 2**21


def cluster_bootstrap(
    statistic: Callable[..., float],
    clusters: ArrayLike | None,
    *arrays: ArrayLike,
    draws: int = 1000,
    level: float = 0.95,
    rng: np.random.Generator,
) -> tuple[float, float]:
    """The percentile bootstrap interval of `statistic(*arrays)`, resampling whole clusters.

    Completions of one prompt resemble each other, so a draw takes prompts with replacement and
    keeps all rows of each (Field & Welsh 2007, Bootstrapping clustered data). The interval lies
    between the (1 - level) / 2 and (1 + level) / 2 quantiles of the draws (Efron & Tibshirani 1993,
    An Introduction to the Bootstrap, ch. 13). With few clusters it is somewhat short: at a nominal
    90 % the interval of a mean covers it about 87 % of the time with 40 clusters.

    Args:
        statistic: takes the resampled arrays, in the order given, and returns one number.
        clusters: the cluster of each row [n], such as its prompt; None: each row is its own.
        arrays: one or more, resampled together along their first axis of length n.
        draws: number of bootstrap samples.
        level: share of draws inside the interval, strictly between 0 and 1.
        rng: source of the resampling.

    Returns:
        (low, high). A draw on which the statistic is undefined (it returns NaN or raises
        ValueError, as `auc` does for a single class) is dropped. (nan, nan) if all are, and for a
        single cluster, which says nothing about the spread between clusters. A ValueError for bad
        arrays cannot be told from these: compute the statistic itself first.

    Raises:
        ValueError: for no arrays, unequal or zero lengths, or `draws` or `level` out of range.
    """
    if draws < 1 or not 0 < level < 1:
        raise ValueError(f"expected draws >= 1 and 0 < level < 1, got {draws} and {level}")
    columns = [np.asarray(array) for array in arrays]
    rows = columns[0].shape[0] if columns and columns[0].ndim else 0
    if rows == 0 or any(column.shape[:1] != (rows,) for column in columns):
        shapes = [column.shape for column in columns]
        raise ValueError(f"arrays: expected equal, non-zero lengths; got shapes {shapes}")
    names = np.arange(rows) if clusters is None else np.asarray(clusters)
    if names.shape != (rows,):
        raise ValueError(f"clusters: expected shape {(rows,)}, got {names.shape}")

    _, cluster_of_row, sizes = np.unique(names, return_inverse=True, return_counts=True)
    if sizes.size < 2:
        return float("nan"), float("nan")
    # Sorted by cluster, the rows of cluster c are by_cluster[starts[c] : starts[c] + sizes[c]].
    by_cluster = np.argsort(cluster_of_row, kind="stable")
    starts = np.cumsum(sizes) - sizes
    values = np.full(draws, np.nan)
    for draw in range(draws):
        drawn = rng.integers(sizes.size, size=sizes.size)
        ends = np.cumsum(sizes[drawn])
        first_row = starts[drawn] - (ends - sizes[drawn])
        sample = by_cluster[np.repeat(first_row, sizes[drawn]) + np.arange(ends[-1])]
        try:
            values[draw] = statistic(*(column[sample] for column in columns))
        except ValueError:
            continue
    return percentiles(values, level)


def cluster_counts(
    clusters: ArrayLike, *, draws: int, rng: np.random.Generator
) -> Iterator[NDArray[np.float64]]:
    """The samples of `cluster_bootstrap`, as how often each has every row: float64 [some, n], in
    parts of as many draws as are well held at once; none for a single cluster."""
    _, cluster_of_row, sizes = np.unique(clusters, return_inverse=True, return_counts=True)
    if sizes.size < 2:
        return
    at_once = max(1, HELD // cluster_of_row.size)
    for start in range(0, draws, at_once):
        drawn = (
            np.bincount(rng.integers(sizes.size, size=sizes.size), minlength=sizes.size)
            for _ in range(start, min(start + at_once, draws))
        )
        yield np.array(list(drawn), dtype=np.float64)[:, cluster_of_row]


def percentiles(values: ArrayLike, level: float) -> tuple[float, float]:
    """The interval of `cluster_bootstrap` from its draws; those that are NaN are dropped."""
    array = np.asarray(values, dtype=np.float64)
    defined = array[~np.isnan(array)]
    if defined.size == 0:
        return float("nan"), float("nan")
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def mean_interval(values: ArrayLike, level: float = 0.95) -> tuple[float, float, float]:
    """The mean of independent values, such as one per seed, and its Student-t interval.

    mean -+ t_{n-1, (1 + level) / 2} * s / sqrt(n), with s the unbiased standard deviation.

    Args:
        values: [n], n >= 2.
        level: nominal coverage, strictly between 0 and 1.

    Returns:
        (mean, low, high), in the unit of the values.

    Raises:
        ValueError: for fewer than two values, a NaN or infinite one, or `level` out of range.
    """
    array = _several(values)
    if not 0 < level < 1:
        raise ValueError(f"level: expected a number strictly between 0 and 1, got {level}")
    mean = float(array.mean())
    quantile = float(special.stdtrit(array.size - 1, (1 + level) / 2))
    half_width = quantile * float(array.std(ddof=1)) / array.size**0.5
    return mean, mean - half_width, mean + half_width


def student_p(values: ArrayLike) -> float:
    """Two-sided p-value of Student's t-test that the mean of independent values is 0, such as of
    one difference per seed. It is below 1 - level where 0 is outside of `mean_interval`.

    Args:
        values: [n], n >= 2.

    Returns:
        A number in [0, 1]; 1 where all values are 0.

    Raises:
        ValueError: for fewer than two values, a NaN or infinite one.
    """
    array = _several(values)
    error = float(array.std(ddof=1)) / array.size**0.5
    if error == 0:
        return 1.0 if array[0] == 0 else 0.0
    return float(2 * special.stdtr(array.size - 1, -abs(array.mean()) / error))


def _several(values: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size < 2:
        raise ValueError(f"values: expected at least two in one dimension, got {array.shape}")
    if not np.all(np.isfinite(array)):
        where = int(np.flatnonzero(~np.isfinite(array))[0])
        raise ValueError(f"values: got {array[where]} at index {where}")
    return array


def sign_flip_p(differences: ArrayLike, *, draws: int = 9999, rng: np.random.Generator) -> float:
    """Two-sided p-value of the mean of paired differences, by flipping their signs.

    If both of a pair come from one distribution, which is less which is a toss-up, whatever that
    distribution is: p is the share of all choices of signs whose mean is as far from 0 as the
    observed one (Edgington & Onghena 2007, Randomization Tests, 4th ed.). Every choice is tried
    where they are no more than `draws` + 1; else p = (b + 1) / (draws + 1), where b of `draws`
    random ones are as far, which is never 0 and never too small on average (Phipson & Smyth 2010,
    Permutation p-values should never be zero).

    Args:
        differences: [n], one for each independent unit, such as a prompt.
        draws: random choices of signs.
        rng: source of these.

    Returns:
        A number in (0, 1]; 1 where all differences are 0.

    Raises:
        ValueError: for no differences, a NaN or infinite one, or draws < 1.
    """
    values = np.asarray(differences, dtype=np.float64)
    if values.ndim != 1 or values.size == 0 or not np.all(np.isfinite(values)) or draws < 1:
        raise ValueError(
            f"expected draws >= 1 and finite differences [n], got {draws}, shape {values.shape}"
        )
    moving = values[values != 0]  # a difference of 0 has no sign to flip
    # Sums that are equal but for the order of their terms are equal.
    bar = abs(moving.sum()) - 1e-9 * np.abs(moving).sum()
    if 2**moving.size <= draws + 1:
        choices = np.arange(2**moving.size)[:, None] >> np.arange(moving.size) & 1
        return float(np.mean(np.abs((1 - 2 * choices) @ moving) >= bar))
    as_far = sum(
        abs(float(np.dot(1 - 2 * rng.integers(2, size=moving.size), moving))) >= bar
        for _ in range(draws)
    )
    return float((as_far + 1) / (draws + 1))


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """p-values [m] of m questions asked together, adjusted: float64 [m], in their order.

    Holm 1979 (A simple sequentially rejective multiple test procedure): of those sorted from the
    smallest, p_(i) times m - i + 1, never less than the one before, at most 1. Calling all that are
    below alpha real is wrong about any of them with a probability of at most alpha.

    Raises:
        ValueError: for a value outside of [0, 1].
    """
    values = np.asarray(p_values, dtype=np.float64)
    if values.ndim != 1 or not np.all((values >= 0) & (values <= 1)):
        raise ValueError(f"p_values: expected numbers from 0 to 1, got {values}")
    order = np.argsort(values, kind="stable")
    adjusted = np.empty(values.size)
    left = np.arange(values.size, 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(values[order] * left), 1)
    return adjusted
