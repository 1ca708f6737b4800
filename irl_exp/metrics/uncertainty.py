"""How far a stated probability can be trusted, and what kind of doubt it expresses.

All functions raise ValueError for empty or misshapen arrays, and for values out of range.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

# Gauss-Hermite nodes: mean and variance of the logits below 10 come out to about 1e-6.
NODES = 64


def calibration_error(probability: ArrayLike, outcome: ArrayLike, bins: int = 15) -> float:
    """The expected calibration error: mean |stated - observed|, over bins of equal mass.

    Sorted by the stated probability, the cases are cut into `bins` runs whose sizes differ by at
    most one; each run's mean probability is compared with its share of outcomes, weighted by size
    (Naeini, Cooper & Hauskrecht 2015). Of a perfect forecaster it is not 0 but about
    sqrt(2 / pi * p (1 - p) * bins / n).

    Args:
        probability: what was stated [n], within [0, 1].
        outcome: 1 where it came true, 0 where not [n].
        bins: at most n are used.
    """
    stated, came = np.asarray(probability, dtype=np.float64), np.asarray(outcome, dtype=np.float64)
    if stated.ndim != 1 or stated.size == 0 or stated.shape != came.shape:
        raise ValueError(f"expected probability and outcome [n]; got {stated.shape}, {came.shape}")
    if not np.all((stated >= 0) & (stated <= 1)) or not np.all((came == 0) | (came == 1)):
        raise ValueError("expected probabilities within [0, 1], and outcomes 0 or 1")
    if bins < 1:
        raise ValueError(f"bins: expected 1 or more, got {bins}")
    runs = np.array_split(np.argsort(stated, kind="stable"), min(bins, stated.size))
    gaps = [abs(float(np.sum(stated[run] - came[run]))) for run in runs]
    return sum(gaps) / stated.size


def entropies(mean: ArrayLike, variance: ArrayLike) -> tuple[NDArray[np.float64], ...]:
    """The entropy of a predicted outcome whose logit is N(mean, variance), in two parts, nats.

    Returns:
        (aleatoric, epistemic), float64 [n] each. Aleatoric: the mean entropy of the outcome where
        the logit is known. Epistemic: what knowing the logit would tell about the outcome (their
        mutual information), never negative. They sum to the entropy of the prediction.
    """
    middle, spread = np.asarray(mean, dtype=np.float64), np.asarray(variance, dtype=np.float64)
    if middle.ndim != 1 or middle.size == 0 or middle.shape != spread.shape:
        raise ValueError(f"expected mean and variance [n]; got {middle.shape}, {spread.shape}")
    if not np.all(np.isfinite(middle)) or not np.all(spread >= 0):
        raise ValueError("expected finite means, and variances of 0 or more")
    nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
    weights = weights / weights.sum()
    logits = middle[:, None] + np.sqrt(spread)[:, None] * nodes
    aleatoric = _entropy(logits) @ weights
    chance = expit(logits) @ weights, expit(-logits) @ weights
    total = -sum(p * np.log(np.maximum(p, 1e-300)) for p in chance)
    # Not below 0 by the concavity of entropy; rounding alone could make it so.
    return aleatoric, np.maximum(total - aleatoric, 0.0)


def _entropy(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of a coin with these log-odds: log(1 + exp(-|z|)) + |z| / (1 + exp(|z|))."""
    size = np.abs(logits)
    entropy: NDArray[np.float64] = np.log1p(np.exp(-size)) + size * expit(-size)
    return entropy
