"""Intervals: coverage by simulation, tables, and the cases in which there is none."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from irl_exp.metrics.agreement import auc, pair_accuracy, pair_counts, pooled_share
from irl_exp.metrics.statistics import cluster_bootstrap, mean_interval


def test_coverage_with_correlated_rows_needs_the_clusters() -> None:
    # 40 prompts of 5 rows, a shared part and a private part of equal variance: the variance of the
    # mean is three times what independent rows would have.
    rng = np.random.default_rng(0)
    prompts = np.repeat(np.arange(40), 5)
    covered = {"clustered": 0, "naive": 0}
    for _ in range(300):
        values = rng.normal(size=40)[prompts] + rng.normal(size=200)
        for name, clusters in (("clustered", prompts), ("naive", None)):
            low, high = cluster_bootstrap(np.mean, clusters, values, draws=200, level=0.9, rng=rng)
            covered[name] += low <= 0 <= high
    assert 0.84 <= covered["clustered"] / 300 <= 0.95
    assert covered["naive"] / 300 < 0.75


def test_whole_clusters_are_resampled_with_their_rows_aligned() -> None:
    names = np.array(["b", "a", "c", "a", "b", "a"])
    values = np.array([20, 10, 30, 11, 21, 12])
    seen = set()

    def record(clusters: np.ndarray, numbers: np.ndarray) -> float:
        whole = {"a": [10, 11, 12], "b": [20, 21], "c": [30]}
        for name, expected in whole.items():
            rows = numbers[clusters == name].tolist()
            assert sorted(rows) == sorted(expected * (len(rows) // len(expected)))
        seen.add("".join(clusters))
        return 0.0

    cluster_bootstrap(record, names, names, values, draws=200, rng=np.random.default_rng(1))
    # Three clusters drawn in order, with replacement: 27 different samples, of 3 to 9 rows.
    assert len(seen) == 27 and {len(sample) for sample in seen} == {3, 4, 5, 6, 7, 8, 9}


def test_without_clusters_each_row_is_its_own() -> None:
    values = np.random.default_rng(2).normal(size=50)
    alone = cluster_bootstrap(np.mean, None, values, rng=np.random.default_rng(3))
    assert alone == cluster_bootstrap(np.mean, range(50), values, rng=np.random.default_rng(3))
    # Close to the normal interval of the mean.
    half = 1.96 * values.std() / 50**0.5
    assert alone == pytest.approx((values.mean() - half, values.mean() + half), abs=0.04)


def test_generator_decides_the_interval() -> None:
    values = np.random.default_rng(4).normal(size=30)
    first, again, other = (
        cluster_bootstrap(np.mean, None, values, draws=50, rng=np.random.default_rng(seed))
        for seed in (5, 5, 6)
    )
    assert first == again != other


def test_undefined_draws_are_dropped() -> None:
    # Two rows of each class in four clusters: 1 draw in 8 has one class only, the others AUC 1.
    low, high = cluster_bootstrap(
        auc, None, [3, 4, 1, 2], [0, 0, 1, 1], draws=200, rng=np.random.default_rng(7)
    )
    assert (low, high) == (1.0, 1.0)


@pytest.mark.parametrize("statistic", [auc, lambda scores, labels: float("nan")])
def test_no_defined_draw_gives_nan(statistic: Callable[..., float]) -> None:
    interval = cluster_bootstrap(
        statistic, None, [1, 2, 3], [1, 1, 1], draws=20, rng=np.random.default_rng(8)
    )
    assert np.isnan(interval).all()


def test_one_cluster_gives_nan() -> None:
    interval = cluster_bootstrap(np.mean, [0, 0], [1, 2], draws=20, rng=np.random.default_rng(9))
    assert np.isnan(interval).all()


def test_pair_counts_and_scores_give_the_same_interval() -> None:
    rng = np.random.default_rng(10)
    truth = rng.normal(size=(60, 4))
    recovered = truth + rng.normal(size=(60, 4))
    slow = cluster_bootstrap(
        pair_accuracy, None, truth, recovered, draws=100, rng=np.random.default_rng(11)
    )
    counts = pair_counts(truth, recovered)
    fast = cluster_bootstrap(pooled_share, None, *counts, draws=100, rng=np.random.default_rng(11))
    assert fast == pytest.approx(slow, abs=1e-12)
    assert fast[0] < pair_accuracy(truth, recovered) < fast[1]


def test_auc_of_thousands_of_texts_is_fast() -> None:
    rng = np.random.default_rng(12)
    labels = rng.integers(0, 2, 5000)
    scores = rng.normal(size=5000) - labels
    started = time.process_time()
    low, high = cluster_bootstrap(auc, rng.integers(0, 1000, 5000), scores, labels, rng=rng)
    assert time.process_time() - started < 4  # about 0.4 s on one core
    assert low < auc(scores, labels) < high and high - low < 0.05


def test_mean_interval_against_a_table() -> None:
    # Mean 2, s = 1, t_{2, 0.975} = 4.3027: 2 -+ 4.3027 / sqrt(3).
    assert mean_interval([1, 2, 3]) == pytest.approx((2, -0.4842, 4.4842), abs=1e-4)
    # s = 2 sqrt(1/2) = sqrt(2), t_{1, 0.95} = 6.3138: 5 -+ 6.3138.
    assert mean_interval([4, 6], level=0.9) == pytest.approx((5, -1.3138, 11.3138), abs=1e-4)
    assert mean_interval([3, 3, 3]) == (3, 3, 3)


@pytest.mark.parametrize(
    ("arguments", "keywords", "message"),
    [
        ((None,), {}, "arrays"),
        ((None, [1, 2], [1, 2, 3]), {}, "arrays"),
        ((None, []), {}, "arrays"),
        ((None, 1.0), {}, "arrays"),
        (([0, 1, 2], [1, 2]), {}, "clusters"),
        ((None, [1, 2]), {"draws": 0}, "draws"),
        ((None, [1, 2]), {"level": 95}, "level"),
    ],
)
def test_bootstrap_names_bad_arguments(
    arguments: tuple[Any, ...], keywords: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        cluster_bootstrap(np.mean, *arguments, **keywords, rng=np.random.default_rng(0))


@pytest.mark.parametrize(
    ("values", "level", "message"),
    [([1], 0.95, "at least two"), ([1, np.nan], 0.95, "got nan at index 1"), ([1, 2], 1, "level")],
)
def test_mean_interval_names_bad_arguments(values: list[float], level: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mean_interval(values, level)
