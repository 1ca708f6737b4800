"""How far a recovered reward agrees with labels, and with the ground-truth reward.

Two kinds of number live here. `pair_accuracy` compares completions of one prompt, which is all that
pairs of completions can identify. The others pool texts of many prompts, so they also depend on the
offset that a recovered reward happens to give each prompt.

Scores are rewards (higher = less toxic), one per text; labels are 1 = toxic, 0 = not. All functions
raise ValueError for empty or misshapen arrays, for scores that are NaN or infinite, and for labels
other than 0 and 1.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special, stats


def auc(scores: ArrayLike, labels: ArrayLike) -> float:
    """The probability that a non-toxic text scores above a toxic one, ties counting one half.

    The area under the ROC curve as a Mann-Whitney statistic (Hanley & McNeil 1982): needs no
    threshold, and any increasing map of the scores leaves it as it is.

    Args:
        scores: rewards [n].
        labels: 1 = toxic, 0 = not [n].

    Returns:
        A number in [0, 1]; one half is chance.

    Raises:
        ValueError: if the labels hold one class only, besides bad arrays.
    """
    values, toxic = _labelled(scores, labels)
    _require_both_classes(toxic)
    toxic_scores, clean_scores = np.sort(values[toxic]), values[~toxic]
    below = np.searchsorted(toxic_scores, clean_scores, side="left").sum()
    below_or_tied = np.searchsorted(toxic_scores, clean_scores, side="right").sum()
    return float((below + below_or_tied) / (2 * toxic_scores.size * clean_scores.size))


def fit_threshold(scores: ArrayLike, labels: ArrayLike) -> float:
    """The cut that maximizes balanced accuracy, where a text is toxic if its score < the cut.

    Balanced accuracy is the mean of the two classes' recalls (Brodersen et al. 2010), so the cut
    does not move with the share of toxic texts. Fit it on the calibration split and use it on
    another.

    Args:
        scores: rewards [n].
        labels: 1 = toxic, 0 = not [n].

    Returns:
        A midpoint between neighbouring distinct scores; of several equally good ones the middle one
        (the lower of two middles). Where all scores are equal there is nothing to cut: the score
        itself, which calls no text toxic.

    Raises:
        ValueError: if the labels hold one class only, besides bad arrays.
    """
    values, toxic = _labelled(scores, labels)
    _require_both_classes(toxic)
    distinct, position = np.unique(values, return_inverse=True)
    if distinct.size == 1:
        return float(distinct[0])
    # Cut i lies between distinct[i] and distinct[i + 1]. The counts stay integers, so that equally
    # good cuts compare as equal.
    toxic_below = np.cumsum(np.bincount(position[toxic], minlength=distinct.size))[:-1]
    clean_below = np.cumsum(np.bincount(position[~toxic], minlength=distinct.size))[:-1]
    balanced = toxic_below * np.sum(~toxic) - clean_below * np.sum(toxic)
    best = np.flatnonzero(balanced == balanced.max())
    cut = best[(best.size - 1) // 2]
    low, high = distinct[cut], distinct[cut + 1]
    middle = low + (high - low) / 2
    return float(middle if middle > low else high)  # no float lies between two adjacent ones


def fit_probability(scores: ArrayLike, labels: ArrayLike) -> tuple[float, float]:
    """Scores as probabilities: (a, b) with P(toxic | score) = 1 / (1 + exp(a * score - b)).

    Platt 1999 (Probabilistic outputs for support vector machines): logistic regression on the score
    alone. Its targets are not 1 and 0 but (toxic + 1) / (toxic + 2) and 1 / (clean + 2), by the
    numbers of either class, so that a and b are finite where the score parts the classes. Fit it on
    the calibration split; its probabilities are those of texts of which as many are toxic as there.

    Args:
        scores: rewards [n].
        labels: 1 = toxic, 0 = not [n].

    Returns:
        (a, b); a is positive where toxic texts score lower, and 0 for a constant score.

    Raises:
        ValueError: if the labels hold one class only, besides bad arrays.
    """
    values, toxic = _labelled(scores, labels)
    _require_both_classes(toxic)
    high, low = (toxic.sum() + 1) / (toxic.sum() + 2), 1 / (np.sum(~toxic) + 2)
    targets = np.where(toxic, high, low)
    if np.ptp(values) == 0:
        return 0.0, float(special.logit(targets.mean()))
    middle, scale = values.mean(), values.std()
    design = np.stack([-(values - middle) / scale, np.ones(values.size)], axis=1)

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        logits = design @ weights
        slope = design.T @ (special.expit(logits) - targets) / targets.size
        return float(np.mean(np.logaddexp(0, logits) - targets * logits)), slope

    a, b = optimize.minimize(loss, np.zeros(2), jac=True, options={"gtol": 1e-8}).x
    return float(a / scale), float(b + a * middle / scale)


def accuracy(scores: ArrayLike, labels: ArrayLike, threshold: float) -> float:
    """The share of texts [n] labelled right, where a text is toxic if its score < `threshold`."""
    values, toxic = _labelled(scores, labels)
    return float(np.mean(_below(values, threshold) == toxic))


def f1(scores: ArrayLike, labels: ArrayLike, threshold: float) -> float:
    """The F1 score of the toxic class, where a text is toxic if its score < `threshold`.

    2 TP / (2 TP + FP + FN) over texts [n]; 0.0 when no text is toxic and none is called so.
    """
    values, toxic = _labelled(scores, labels)
    called = _below(values, threshold)
    either = np.sum(called) + np.sum(toxic)
    return float(2 * np.sum(called & toxic) / either) if either else 0.0


def accuracy_at_zero(scores: ArrayLike, labels: ArrayLike) -> float:
    """The share of texts [n] labelled right, where a text is toxic if its score <= 0.

    The rule of Joselowitz et al. (arXiv 2410.12491), kept to compare with their numbers. The zero
    of a reward learnt from pairs is arbitrary, so prefer `accuracy` at a fitted threshold.
    """
    values, toxic = _labelled(scores, labels)
    return float(np.mean((values <= 0) == toxic))


def pearson(a: ArrayLike, b: ArrayLike) -> float:
    """Pearson's r of two rewards on the same texts (see `_correlation`)."""
    return _correlation(stats.pearsonr, a, b)


def spearman(a: ArrayLike, b: ArrayLike) -> float:
    """Spearman's rho of two rewards on the same texts (see `_correlation`)."""
    return _correlation(stats.spearmanr, a, b)


def kendall(a: ArrayLike, b: ArrayLike) -> float:
    """Kendall's tau-b of two rewards on the same texts (see `_correlation`)."""
    return _correlation(stats.kendalltau, a, b)


def _correlation(measure: Callable[..., Any], a: ArrayLike, b: ArrayLike) -> float:
    """One of scipy's correlations of scores [n] and [n], n >= 2: NaN if an input is constant.

    Raises ValueError for fewer than two texts, besides bad arrays.
    """
    first, second = _numbers("a", a, 1), _numbers("b", b, 1)
    _require_shape("b", second, first.shape)
    if first.size < 2:
        raise ValueError("a: expected at least two scores to correlate, got 1")
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan")
    return float(measure(first, second).statistic)


def pair_accuracy(truth: ArrayLike, recovered: ArrayLike, groups: ArrayLike | None = None) -> float:
    """The share of pairs of one prompt's completions that two rewards order alike.

    Pooled over prompts: every pair whose ground truth differs counts once; a tie in the recovered
    reward counts one half. Any increasing map of the scores, even another one for each prompt,
    leaves it as it is.

    Args:
        truth: ground-truth reward [n, m] of m >= 2 completions of each of n prompts.
        recovered: recovered reward [n, m] of the same completions.
        groups: labels [n, m] of the completions; only pairs with equal labels are compared, for
            instance completions of one policy. All pairs by default.

    Returns:
        A number in [0, 1], one half is chance; NaN where no pair differs in truth.
    """
    return pooled_share(*pair_counts(truth, recovered, groups))


def pair_counts(
    truth: ArrayLike,
    recovered: ArrayLike,
    groups: ArrayLike | None = None,
    comparable: ArrayLike | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Each prompt's part in `pair_accuracy`, to resample prompts without comparing pairs again.

        cluster_bootstrap(pooled_share, None, *pair_counts(truth, recovered), rng=rng)

    Args:
        truth, recovered, groups: as in `pair_accuracy`.
        comparable: bool [n, m, m]; only pairs i < j with comparable[:, i, j] are compared.

    Returns:
        (agreeing, total): the pairs ordered alike (float64 [n], in halves) and the pairs whose
        truth differs (int64 [n]).
    """
    true, guess = _numbers("truth", truth, 2), _numbers("recovered", recovered, 2)
    _require_shape("recovered", guess, true.shape)
    if true.shape[1] < 2:
        raise ValueError("truth: expected at least two completions per prompt, got 1")
    i, j = np.triu_indices(true.shape[1], k=1)
    true_order, guess_order = _order(true[:, i], true[:, j]), _order(guess[:, i], guess[:, j])
    counted = true_order != 0
    if groups is not None:
        group = np.asarray(groups)
        _require_shape("groups", group, true.shape)
        counted &= group[:, i] == group[:, j]
    if comparable is not None:
        allowed = np.asarray(comparable, dtype=bool)
        _require_shape("comparable", allowed, (*true.shape, true.shape[1]))
        counted &= allowed[:, i, j]
    agreeing = np.sum((1 + true_order * guess_order) / 2, axis=1, where=counted)
    return agreeing, np.sum(counted, axis=1, dtype=np.int64)


def pooled_share(agreeing: ArrayLike, total: ArrayLike) -> float:
    """sum(agreeing) / sum(total) of `pair_counts`; NaN where there is no pair."""
    pairs = np.sum(total)
    return float(np.sum(agreeing) / pairs) if pairs else float("nan")


def _order(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.int8]:
    """1 where left is greater, -1 where right is, 0 where they tie."""
    return (left > right).astype(np.int8) - (left < right).astype(np.int8)


def _below(values: NDArray[np.float64], threshold: float) -> NDArray[np.bool_]:
    if np.isnan(threshold):
        raise ValueError("threshold: expected a number, got nan")
    return values < threshold


def _labelled(
    scores: ArrayLike, labels: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Checked scores, and which of their texts are toxic."""
    values, classes = _numbers("scores", scores, 1), np.asarray(labels)
    _require_shape("labels", classes, values.shape)
    toxic = classes == 1
    if not np.all(toxic | (classes == 0)):
        raise ValueError(f"labels: expected 0 and 1 only, got {np.unique(classes)[:5].tolist()}")
    return values, toxic


def _numbers(name: str, values: ArrayLike, ndim: int) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != ndim or array.size == 0:
        raise ValueError(f"{name}: expected {ndim} dimension(s), not empty; got {array.shape}")
    if not np.all(np.isfinite(array)):
        where = np.argwhere(~np.isfinite(array))[0]
        raise ValueError(f"{name}: got {array[tuple(where)]} at index {where.tolist()}")
    return array


def _require_shape(name: str, array: NDArray[np.generic], shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {array.shape}")


def _require_both_classes(toxic: NDArray[np.bool_]) -> None:
    if np.all(toxic) or not np.any(toxic):
        raise ValueError(f"labels: expected both 0 and 1, got only {int(toxic[0])}")
