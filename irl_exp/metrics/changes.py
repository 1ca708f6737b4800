"""What an aligned policy does otherwise than the reference, and what it would do if it were let on.

Columns are [n, 2k], of n prompts k completions of the aligned policy and then k of the reference.
All functions raise ValueError for misshapen arrays.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, gammaln, ndtri

from irl_exp.metrics import agreement
from irl_exp.metrics.statistics import holm


def sides(column: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The mean of each prompt's completions, by the aligned policy and the reference: [n] each."""
    aligned, reference = np.split(_columns(column), 2, axis=1)
    return aligned.mean(axis=1), reference.mean(axis=1)


def preferred(scores: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """How often a reward prefers what the aligned policy wrote: (agreeing, total) of each prompt's
    k^2 pairs, as of `agreement.pair_counts`; `agreement.pooled_share` of them is the share, in
    which a tie counts one half."""
    array = _columns(scores)
    k = array.shape[1] // 2
    wrote = np.repeat([1.0, 0.0], k)[None].repeat(len(array), axis=0)
    return agreement.pair_counts(wrote, array)


def matched(scores: ArrayLike) -> NDArray[np.float64]:
    """R(aligned) - R(reference) of matched pairs, the i-th completion of either: [n, k]."""
    aligned, reference = np.split(_columns(scores), 2, axis=1)
    difference: NDArray[np.float64] = aligned - reference
    return difference


def fit_slope(differences: ArrayLike) -> float:
    """a >= 0 with P(aligned preferred) = 1 / (1 + exp(-a d)) most likely, d of pairs of any shape.

    Bradley and Terry's model, whose temperature is 1/a, with the targets of Platt (1999): n pairs
    count as preferred with probability t = (n + 1) / (n + 2), so that n that are all in order do
    not make a reward infinitely sure. The derivative sum d (t - sigmoid(a d)) falls in a; its zero
    is found by bisection. 0 where the differences say nothing or the opposite.
    """
    d = np.asarray(differences, dtype=np.float64).ravel()
    if d.size == 0 or not np.all(np.isfinite(d)):
        raise ValueError("differences: expected finite numbers")
    target = (d.size + 1) / (d.size + 2)

    def rises(a: float) -> bool:
        return float(np.sum(d * (target - expit(a * d)))) > 0

    if not rises(0.0):
        return 0.0
    low, high = 0.0, 1.0
    while rises(high):
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if rises(middle) else (low, middle)
    return (low + high) / 2


def word_changes(
    present: Mapping[str, ArrayLike], clusters: ArrayLike, level: float
) -> pd.DataFrame:
    """Which words the aligned policy uses more, and which less.

    Args:
        present: word -> which completions hold it, 0 or 1, [n, 2k].
        clusters: the cluster of each prompt [n].
        level: of all intervals at once (Bonferroni), between 0 and 1.

    Returns:
        A row a word, by |change| / standard error, the largest first: `word`, the shares `aligned`
        and `reference`, their difference `change`, and its ends `low` and `high`, by the normal
        approximation with prompts as clusters.
    """
    names, codes = np.unique(np.asarray(clusters), return_inverse=True)
    z = float(-ndtri((1 - level) / 2 / max(len(present), 1)))
    rows = []
    for word, column in present.items():
        ours, theirs = sides(column)
        difference = ours - theirs
        change = float(difference.mean())
        sums = np.bincount(codes, difference - change, minlength=len(names))
        # One cluster says nothing of a spread between clusters.
        error = float(np.sqrt(np.sum(sums**2))) / len(difference) if len(names) > 1 else np.inf
        rows.append((word, ours.mean(), theirs.mean(), change, error))
    columns = ["word", "aligned", "reference", "change", "error"]
    table = pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(columns[1:], np.float64))
    table["low"], table["high"] = (
        table["change"] - z * table["error"],
        table["change"] + z * table["error"],
    )
    size = table["change"].abs() / table["error"].clip(lower=1e-12)
    order = size.sort_values(ascending=False, kind="stable").index
    return table.loc[order].drop(columns="error").reset_index(drop=True)


def best_of(order: ArrayLike, values: ArrayLike, n: int) -> NDArray[np.float64]:
    """The mean, over all sets of n of a prompt's N candidates, of what the best of the set has.

    The candidate of rank i (0 the lowest) is the best of C(i, n - 1) of the C(N, n) sets.

    Args:
        order: what candidates are judged by, the highest is best, [prompts, N].
        values: what is asked of the best, [prompts, N].
        n: 1 to N.

    Returns:
        float64 [prompts].
    """
    judged, asked = (np.asarray(array, dtype=np.float64) for array in (order, values))
    if judged.ndim != 2 or judged.shape != asked.shape or not 1 <= n <= judged.shape[1]:
        raise ValueError(f"expected [prompts, N >= n={n}]; got {judged.shape}, {asked.shape}")
    total = judged.shape[1]
    ranks = np.arange(n - 1, total)
    weights = np.exp(_log_choose(ranks, n - 1) - _log_choose(np.array([total]), n))
    in_order = np.take_along_axis(asked, judged.argsort(axis=1, kind="stable"), axis=1)
    mean: NDArray[np.float64] = in_order[:, n - 1 :] @ weights
    return mean


def _log_choose(n: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    result: NDArray[np.float64] = gammaln(n + 1.0) - gammaln(k + 1.0) - gammaln(n - k + 1.0)
    return result


def corrected(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's correction, by name."""
    return dict(zip(p_values, holm(list(p_values.values())).tolist(), strict=True))


def _columns(column: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(column, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] % 2 or array.size == 0:
        raise ValueError(f"expected [prompts, 2k], got {array.shape}")
    return array
