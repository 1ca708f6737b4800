"""Intervals: coverage by simulation, tables, and the cases in which there is none."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import stats

from irl_exp.metrics.agreement import auc, pair_accuracy, pair_counts, pooled_share
from irl_exp.metrics.statistics import (
    cluster_bootstrap,
    holm,
    mean_interval,
    sign_flip_p,
    student_p,
)


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


def flipped(differences: Any, **keywords: Any) -> float:
    return sign_flip_p(differences, **keywords, rng=np.random.default_rng(0))


def test_sign_flips_by_hand() -> None:
    # Of eight choices of signs of 1, 2, 3 only the two of one sign throughout sum to 6 or -6.
    assert flipped([1, 2, 3]) == 2 / 8 == flipped([-1, -2, -3])
    # 3 - 1 - 2 = 0 is beaten by none of them; a difference of 0 has no sign.
    assert flipped([3, -1, -2]) == 1
    assert flipped([1, 0, 2, 0, 3]) == 2 / 8
    # 1 + 2 - 0.5 = 2.5: as far are 3.5 and 2.5 of either sign.
    assert flipped([1, 2, -0.5]) == 4 / 8
    assert flipped([0.1]) == flipped([0, 0]) == 1


def test_equal_sums_are_equal_whatever_the_order_of_their_terms() -> None:
    # 0.1 + 0.2 + 0.3 and its like are apart by rounding alone: the exact p is that of 1, 2, 3.
    assert flipped([0.1, 0.2, 0.3]) == 2 / 8
    # All of 13 steps: as far are both ends.
    assert flipped([0.1] * 13) == 2 / 2**13


def test_random_sign_flips_come_near_all_of_them_and_are_never_0() -> None:
    differences = np.random.default_rng(1).normal(0.2, 1, 13)
    exact, drawn = flipped(differences), flipped(differences, draws=8000)
    assert 0.02 < exact < 0.6 and exact != drawn == pytest.approx(exact, abs=0.02)
    assert flipped(np.ones(60), draws=99) == 1 / 100


def test_sign_flips_reject_as_often_as_they_say_and_see_a_difference() -> None:
    rng = np.random.default_rng(2)
    skewed = rng.exponential(size=(300, 2, 30))  # both of a pair from one skewed distribution
    p = np.array([flipped(a - b, draws=99) for a, b in skewed])
    assert 0.02 < np.mean(p <= 0.05) < 0.09 and 0.4 < np.mean(p <= 0.5) < 0.6
    p = np.array([flipped(a + 0.8 - b, draws=99) for a, b in skewed[:100]])
    assert np.mean(p <= 0.05) > 0.7


def test_holm_by_hand() -> None:
    # Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1: 0.02, 0.03, 0.06, and 0.04 raised to 0.06.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]).tolist() == [1, 1]
    assert holm([]).size == 0


@pytest.mark.parametrize(
    "call",
    [
        lambda: flipped([]),
        lambda: flipped([[1.0]]),
        lambda: flipped([np.nan]),
        lambda: flipped([1.0], draws=0),
        lambda: holm([0.5, 1.5]),
        lambda: holm([np.nan]),
    ],
)
def test_tests_name_bad_arguments(call: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match="expected"):
        call()


# --- Student's t ----------------------------------------------------------------------------------


def test_student_p_is_scipys() -> None:
    values = np.random.default_rng(0).normal(0.4, 1.0, 7)
    assert student_p(values) == pytest.approx(stats.ttest_1samp(values, 0).pvalue)


def test_student_p_agrees_with_the_interval() -> None:
    rng = np.random.default_rng(0)
    for shift in (0.0, 0.5, 1.0, 2.0):
        values = rng.normal(shift, 1.0, 6)
        _, low, high = mean_interval(values)
        assert (student_p(values) < 0.05) == (low > 0 or high < 0)


def test_student_p_of_values_without_spread() -> None:
    assert student_p([0.0, 0.0]) == 1.0
    assert student_p([0.1, 0.1]) == 0.0
    with pytest.raises(ValueError, match="expected at least two"):
        student_p([0.1])
