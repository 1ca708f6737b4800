"""What changed, how odds are fitted, and the best of n: against hand and brute force."""

from itertools import combinations

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from irl_exp.metrics import agreement, changes


def test_preferred_counts_pairs_of_both_sides_with_ties_as_halves() -> None:
    # Aligned 1 and 2, reference 0 and 2: 1 > 0, 1 < 2, 2 > 0, 2 = 2: 2.5 of 4.
    agreeing, total = changes.preferred([[1, 2, 0, 2]])
    assert agreement.pooled_share(agreeing, total) == 2.5 / 4


def test_sides_and_matched_pairs() -> None:
    ours, theirs = changes.sides([[1, 3, 0, 0], [2, 2, 4, 6]])
    assert ours.tolist() == [2, 2]
    assert theirs.tolist() == [0, 5]
    assert changes.matched([[1, 3, 0, 5]]).tolist() == [[1, -2]]


def test_the_slope_is_the_likeliest() -> None:
    d = np.random.default_rng(0).normal(0.4, 1, 500)
    t = 501 / 502

    def loss(a: float) -> float:
        return float((t * np.logaddexp(0, -a * d) + (1 - t) * np.logaddexp(0, a * d)).sum())

    found = minimize_scalar(loss, bounds=(0, 20), method="bounded")
    assert changes.fit_slope(d) == pytest.approx(found.x, abs=1e-4)


def test_the_slope_of_nothing_and_of_certainty() -> None:
    assert changes.fit_slope([-1.0, -2.0]) == 0
    # Of one pair, d = 2, the target is 2/3: sigmoid(2 a) = 2/3.
    assert changes.fit_slope([2.0]) == pytest.approx(np.log(2) / 2)


def test_the_best_of_n_is_the_mean_over_all_sets() -> None:
    rng = np.random.default_rng(1)
    order, values = rng.normal(size=(3, 6)), rng.normal(size=(3, 6))
    for n in (1, 2, 4, 6):
        by_hand = [
            np.mean([row[max(chosen, key=o.__getitem__)] for chosen in combinations(range(6), n)])
            for o, row in zip(order, values, strict=True)
        ]
        assert changes.best_of(order, values, n) == pytest.approx(by_hand)
    with pytest.raises(ValueError, match="N >= n=7"):
        changes.best_of(order, values, 7)


def test_words_that_changed_are_told_from_those_that_did_not() -> None:
    rng = np.random.default_rng(2)
    n = 400
    more = np.concatenate([rng.random((n, 2)) < 0.5, rng.random((n, 2)) < 0.2], axis=1)
    same = rng.random((n, 4)) < 0.3
    table = changes.word_changes({"same": same, "more": more}, np.arange(n), 0.95)
    assert table["word"].tolist() == ["more", "same"]
    first, second = table.to_dict("records")
    assert first["change"] == pytest.approx(more[:, :2].mean() - more[:, 2:].mean())
    assert first["low"] > 0
    assert second["low"] < 0 < second["high"]
    # The half width is z of the corrected level times the standard error of a mean of prompts.
    difference = same[:, :2].mean(1) - same[:, 2:].mean(1)
    half = 2.2414 * difference.std() / n**0.5
    assert second["high"] - second["change"] == pytest.approx(half, rel=1e-3)


def test_prompts_of_one_cluster_count_once() -> None:
    """Each prompt twice: the shares stay, and the interval does not narrow."""
    column = (np.random.default_rng(3).random((100, 2)) < 0.5).astype(float)
    once = changes.word_changes({"a": column}, np.arange(100), 0.95).iloc[0]
    twice = changes.word_changes({"a": np.tile(column, (2, 1))}, np.tile(np.arange(100), 2), 0.95)
    assert twice.iloc[0]["change"] == pytest.approx(once["change"])
    assert twice.iloc[0]["high"] == pytest.approx(once["high"])
