"""Measures on all draws at once are those of one draw after the other."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from irl_exp.metrics import agreement, resampled, reward_distance, statistics
from irl_exp.metrics.statistics import cluster_bootstrap, cluster_counts, percentiles

DRAWS, ROWS = 60, 40


def pooled(rng: np.random.Generator) -> tuple[NDArray[Any], ...]:
    """Scores with ties, others, labels, and clusters of uneven size."""
    scores = rng.integers(-5, 6, ROWS) / 2
    labels = (rng.random(ROWS) < 0.3).astype(np.int64)
    return scores, scores + rng.normal(size=ROWS), labels, rng.integers(12, size=ROWS)


CASES: dict[str, tuple[Callable[..., float], Callable[..., NDArray[np.float64]]]] = {
    "auc": (lambda s, t, y: agreement.auc(s, y), lambda c, s, t, y: resampled.auc(c, s, y)),
    "accuracy": (
        lambda s, t, y: agreement.accuracy(s, y, 0.5),
        lambda c, s, t, y: resampled.accuracy(c, s, y, 0.5),
    ),
    "f1": (
        lambda s, t, y: agreement.f1(s, y, 0.5),
        lambda c, s, t, y: resampled.f1(c, s, y, 0.5),
    ),
    "accuracy_at_zero": (
        lambda s, t, y: agreement.accuracy_at_zero(s, y),
        lambda c, s, t, y: resampled.accuracy_at_zero(c, s, y),
    ),
    "pearson": (
        lambda s, t, y: agreement.pearson(s, t),
        lambda c, s, t, y: resampled.pearson(c, s, t),
    ),
    "spearman": (
        lambda s, t, y: agreement.spearman(s, t),
        lambda c, s, t, y: resampled.spearman(c, s, t),
    ),
}


def intervals(case: str, clusters: NDArray[Any], *arrays: NDArray[Any]) -> list[float]:
    """Both ways, low and high."""
    one, all_ = CASES[case]
    by_one = cluster_bootstrap(
        one, clusters, *arrays, draws=DRAWS, level=0.9, rng=np.random.default_rng(0)
    )
    parts = cluster_counts(clusters, draws=DRAWS, rng=np.random.default_rng(0))
    values = np.concatenate([all_(counts, *arrays) for counts in parts])
    assert values.shape == (DRAWS,)
    np.testing.assert_allclose(percentiles(values, 0.9), by_one, rtol=1e-12, atol=1e-12)
    return list(by_one)


@pytest.mark.parametrize("case", CASES)
def test_pooled_measures(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    *arrays, clusters = pooled(np.random.default_rng(1))
    whole = intervals(case, clusters, *arrays)
    monkeypatch.setattr(statistics, "HELD", 7 * ROWS)  # in parts, the last of them smaller
    assert intervals(case, clusters, *arrays) == whole


@pytest.mark.parametrize("case", ["auc", "pearson", "spearman", "f1"])
def test_draws_that_have_no_value_are_dropped(case: str) -> None:
    scores, labels = np.array([1.0, 1.0, 1.0, 2.0]), np.array([0, 0, 0, 1])
    intervals(case, np.arange(4), scores, scores**2, labels)


@pytest.mark.parametrize("name", ["pair_accuracy", "starc"])
def test_measures_within_prompts(name: str) -> None:
    rng = np.random.default_rng(2)
    truth = rng.normal(size=(ROWS, 4))
    for other in (truth + rng.normal(size=truth.shape), truth * 2 + 1, np.zeros_like(truth)):
        one = {"pair_accuracy": agreement.pair_accuracy, "starc": reward_distance.starc}[name]
        by_one = cluster_bootstrap(one, None, truth, other, draws=DRAWS, rng=rng_of())
        (counts,) = cluster_counts(np.arange(ROWS), draws=DRAWS, rng=rng_of())
        values = getattr(resampled, name)(counts, truth, other)
        np.testing.assert_allclose(percentiles(values, 0.95), by_one, rtol=1e-9, atol=1e-12)


def rng_of() -> np.random.Generator:
    return np.random.default_rng(0)
