"""How much of a recovered reward is something simpler: length, an ending, repetition, likelihood.

A factor is a number of each completion, like a reward. All is compared within prompts, since the
offset of a prompt is not identified: every array [n, m] (m completions of each of n prompts) first
loses its mean per prompt. A factor that R* rewards too is no shortcut, and R̂ may follow it: so
beside the correlation of R̂ with a factor stands the one that is left once R* is known, and beside
the correlation of R̂ with R* the one that is left once the factor is known.

All functions raise ValueError for misshapen arrays and for entries that are NaN or infinite.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from irl_exp.metrics import agreement
from irl_exp.metrics.behavior import distinct_n
from irl_exp.metrics.reward_distance import centred


def repetition(texts: Sequence[str]) -> NDArray[np.float64]:
    """The share of each text's words that stood in it before, float64 [n]; 0 without words.

    1 - distinct words / words: a completion is too short to repeat a bigram and still be one.
    """
    return np.array([1 - distinct_n([text], 1) if text.split() else 0.0 for text in texts])


def correlation(a: ArrayLike, b: ArrayLike) -> float:
    """Pearson's r of two columns [n, m] within prompts: of their deviations, all prompts pooled.

    NaN where one of them varies within no prompt.
    """
    return partial_correlation(a, b)


def partial_correlation(a: ArrayLike, b: ArrayLike, *given: ArrayLike) -> float:
    """Pearson's r of a and b within prompts, once `given` is taken out of both by least squares.

    With one given column z it is (r_ab - r_az r_bz) / sqrt((1 - r_az^2) (1 - r_bz^2)) (Yule 1907).
    It sees what is linear: a reward that follows R* along a curve leaves something to any factor
    that goes with R*.

    Args:
        a, b: columns [n, m].
        given: none or more columns [n, m].

    Returns:
        A number in [-1, 1]; NaN where nothing of a or of b is left.
    """
    columns = [centred(column) for column in (a, b, *given)]
    for place, column in enumerate(columns):
        if column.shape != columns[0].shape:
            raise ValueError(
                f"column {place}: expected shape {columns[0].shape}, got {column.shape}"
            )
    first, second = (without(column.ravel(), columns[2:]) for column in columns[:2])
    lengths = float(np.linalg.norm(first) * np.linalg.norm(second))
    if lengths == 0:
        return float("nan")
    return float(np.clip(first @ second / lengths, -1, 1))


def without(column: NDArray[np.float64], given: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """What no sum of the given columns explains; zeros where that is rounding alone."""
    if not given:
        return column
    design = np.stack([other.ravel() for other in given], axis=1)
    # In units of one length, so that a factor in the thousands does not drown another one.
    sizes = np.linalg.norm(design, axis=0)
    design = design / np.where(sizes > 0, sizes, 1)
    left = column - design @ np.linalg.lstsq(design, column, rcond=None)[0]
    something = np.linalg.norm(left) > 1e-9 * np.linalg.norm(column)
    return left if something else np.zeros_like(left)


def matched_pair_counts(
    truth: ArrayLike, recovered: ArrayLike, factor: ArrayLike, tolerance: float
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Each prompt's part in the pair accuracy of completions that are alike in a factor.

    `agreement.pooled_share` of them: the share of orders that R̂ cannot have found by the factor.

    Args:
        truth, recovered: rewards [n, m].
        factor: not negative, such as lengths, [n, m].
        tolerance: by which share of the larger one the two may differ; 0: equal ones alone.

    Returns:
        (agreeing, total), as `agreement.pair_counts`.
    """
    column = np.asarray(factor, dtype=np.float64)
    centred(column)  # its checks
    if np.any(column < 0):
        raise ValueError("factor: expected numbers that are not negative")
    left, right = column[:, :, None], column[:, None, :]
    alike = np.abs(left - right) <= tolerance * np.maximum(left, right)
    return agreement.pair_counts(truth, recovered, comparable=alike)
