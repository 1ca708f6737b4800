"""Agreement against hand-worked answers, scikit-learn and slow but obvious loops."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from sklearn import metrics
from sklearn.linear_model import LogisticRegression

from irl_exp.metrics.agreement import (
    accuracy,
    accuracy_at_zero,
    auc,
    f1,
    fit_probability,
    fit_threshold,
    kendall,
    pair_accuracy,
    pair_counts,
    pearson,
    pooled_share,
    spearman,
)


def test_auc_by_hand() -> None:
    # Non-toxic 3 and 1 against toxic 2 and 1: 3>2, 3>1, 1<2, 1=1 make 2.5 of 4.
    assert auc([3, 1, 2, 1], [0, 0, 1, 1]) == 2.5 / 4
    assert auc([1, 2], [1, 0]) == 1
    assert auc([2, 1], [1, 0]) == 0
    assert auc([0, 0, 0], [1, 0, 0]) == 0.5


@pytest.mark.parametrize("ties", [True, False])
def test_auc_is_that_of_scikit_learn_with_the_sign_of_toxicity(ties: bool) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 500)
    scores = rng.normal(size=500) - labels
    scores = np.round(scores) if ties else scores
    assert auc(scores, labels) == pytest.approx(metrics.roc_auc_score(labels, -scores), abs=1e-12)


def test_fit_probability_by_hand() -> None:
    # Two scores only, so that the fit is exact: at each, the mean of the smoothed targets, which
    # for 4 toxic and 6 other texts are 5/6 and 1/8. At -1 stand 3 toxic and 1 other, at 3 the rest.
    scores, labels = [-1] * 4 + [3] * 6, [1, 1, 1, 0, 1, 0, 0, 0, 0, 0]
    a, b = fit_probability(scores, labels)
    found = 1 / (1 + np.exp(a * np.array([-1, 3]) - b))
    assert found == pytest.approx([(3 * 5 / 6 + 1 / 8) / 4, (5 / 6 + 5 / 8) / 6], abs=1e-6)


def test_fit_probability_of_many_texts_is_logistic_regression() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(5, 20, 20_000)
    labels = (rng.random(20_000) < 1 / (1 + np.exp(0.2 * scores - 0.7))).astype(int)
    fitted = LogisticRegression(C=1e9).fit(-scores[:, None], labels)
    a, b = fit_probability(scores, labels)
    assert (a, b) == pytest.approx((fitted.coef_[0, 0], fitted.intercept_[0]), rel=0.01)
    assert (a, b) == pytest.approx((0.2, 0.7), abs=0.06)


def test_probabilities_are_finite_where_classes_part_and_equal_where_nothing_varies() -> None:
    a, b = fit_probability([0, 1, 2, 5], [1, 1, 0, 0])
    toxic, clean = 1 / (1 + np.exp(a * np.array([0.5, 3.5]) - b))
    assert 0.6 < toxic < 1 and 0 < clean < 0.4
    # One toxic text of four: the targets are 2/3 and three times 1/5.
    a, b = fit_probability([7, 7, 7, 7], [1, 0, 0, 0])
    assert a == 0 and 1 / (1 + np.exp(-b)) == pytest.approx((2 / 3 + 3 / 5) / 4)


def test_fit_threshold_by_hand() -> None:
    assert fit_threshold([0, 1, 2, 5], [1, 1, 0, 0]) == 1.5
    # Recalls of (toxic, other) at the cuts 0.5, 1.5, 2.5: (1/2, 1), (1/2, 1/2), (1/2, 0).
    assert fit_threshold([0, 1, 2, 3], [1, 0, 0, 1]) == 0.5
    # One toxic text of five: (0, 3/4), (1, 3/4), (1, 1/2), (1, 1/4). Plain accuracy would be as
    # good with no text called toxic.
    assert fit_threshold([0, 1, 2, 3, 4], [0, 1, 0, 0, 0]) == 1.5


def test_fit_threshold_takes_the_middle_of_equally_good_cuts() -> None:
    # Recalls at 0.5, 2.5 and 4.5: (1/3, 1), (2/3, 2/3), (1, 1/3); at 1.5 and 3.5 they sum to less.
    assert fit_threshold([0, 1, 2, 3, 4, 5], [1, 0, 1, 0, 1, 0]) == 2.5
    # Of two, at 0.5 and 2.5, the lower.
    assert fit_threshold([0, 1, 2, 3], [1, 0, 1, 0]) == 0.5


def test_fit_threshold_beats_every_other_cut() -> None:
    rng = np.random.default_rng(1)
    labels = (rng.random(200) < 0.2).astype(int)
    scores = np.round(rng.normal(size=200) - labels, 1)
    threshold = fit_threshold(scores, labels)

    def balanced(cut: float) -> float:
        return float(metrics.balanced_accuracy_score(labels, scores < cut))

    distinct = np.unique(scores)
    assert balanced(threshold) == pytest.approx(
        max(balanced(cut) for cut in (distinct[:-1] + distinct[1:]) / 2)
    )
    assert np.min(np.abs((distinct[:-1] + distinct[1:]) / 2 - threshold)) < 1e-12


def test_fit_threshold_separates_adjacent_floats_and_survives_constant_scores() -> None:
    low, high = 1.0, np.nextafter(1.0, 2.0)
    assert accuracy([low, high], [1, 0], fit_threshold([low, high], [1, 0])) == 1
    assert fit_threshold([7, 7, 7], [1, 0, 1]) == 7


def test_accuracy_and_f1_against_scikit_learn() -> None:
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 2, 300)
    scores = np.round(rng.normal(size=300) - labels)
    called = scores < 0
    assert accuracy(scores, labels, 0) == metrics.accuracy_score(labels, called)
    assert f1(scores, labels, 0) == pytest.approx(metrics.f1_score(labels, called), abs=1e-12)


def test_a_score_on_the_threshold_is_not_toxic_but_zero_is_in_the_rule_of_the_paper() -> None:
    assert accuracy([0.0, 1.0], [1, 0], threshold=0.0) == 0.5
    assert accuracy_at_zero([0.0, 1.0], [1, 0]) == 1.0
    assert accuracy_at_zero([-1.0, -2.0, 3.0, 4.0], [1, 0, 0, 1]) == 0.5


def test_f1_is_zero_when_nothing_is_called_or_present() -> None:
    assert f1([1, 2], [0, 0], threshold=0) == 0
    assert f1([1, 2], [1, 0], threshold=0) == 0
    assert f1([1, 2], [0, 0], threshold=5) == 0


def test_correlations_by_hand() -> None:
    # Deviations (-1, 0, 1) and (-1, -1, 2): r = 3 / sqrt(2 * 6). Two concordant pairs of three and
    # one tie in b: tau-b = 2 / sqrt(3 * 2). Ranks of b are 1.5, 1.5, 3: rho = 1.5 / sqrt(2 * 1.5).
    a, b = [1, 2, 3], [0, 0, 3]
    assert pearson(a, b) == pytest.approx(3 / 12**0.5)
    assert kendall(a, b) == pytest.approx(2 / 6**0.5)
    assert spearman(a, b) == pytest.approx(1.5 / 3**0.5)


def test_rank_correlations_ignore_an_increasing_map() -> None:
    a = np.random.default_rng(3).normal(size=50)
    assert spearman(a, np.exp(a)) == pytest.approx(1) and kendall(a, np.exp(a)) == pytest.approx(1)
    assert pearson(a, np.exp(a)) < 0.99


@pytest.mark.filterwarnings("error")
def test_correlations_of_a_constant_are_nan() -> None:
    for correlation in (pearson, spearman, kendall):
        assert np.isnan(correlation([1, 2, 3], [0.1, 0.1, 0.1]))


def test_pair_accuracy_by_hand() -> None:
    truth = [[1, 2, 3], [5, 5, 9]]
    # First prompt: (1,2) reversed, (1,3) right, (2,3) right. Second: the tie in truth is left out,
    # one pair right, one tied in recovered.
    recovered = [[20, 10, 30], [0, 4, 4]]
    agreeing, total = pair_counts(truth, recovered)
    assert agreeing.tolist() == [2, 1.5]
    assert total.tolist() == [3, 2]
    assert pair_accuracy(truth, recovered) == 3.5 / 5


def test_pair_accuracy_against_a_loop() -> None:
    rng = np.random.default_rng(4)
    truth, recovered = rng.integers(0, 4, (2, 30, 6))
    groups = rng.integers(0, 2, (30, 6))
    for chosen in (None, groups):
        right, pairs = 0.0, 0
        for row, (i, j) in itertools.product(range(30), itertools.combinations(range(6), 2)):
            together = chosen is None or chosen[row, i] == chosen[row, j]
            if together and truth[row, i] != truth[row, j]:
                pairs += 1
                sign = np.sign(truth[row, i] - truth[row, j])
                guess = np.sign(recovered[row, i] - recovered[row, j])
                right += 0.5 if guess == 0 else float(guess == sign)
        assert pair_accuracy(truth, recovered, chosen) == pytest.approx(right / pairs, abs=1e-12)


def test_pair_accuracy_ignores_prompt_offsets_and_sees_reversal_and_chance() -> None:
    rng = np.random.default_rng(5)
    truth = rng.normal(size=(40, 5))
    offsets = 100 * rng.normal(size=(40, 1))
    assert pair_accuracy(truth, np.exp(truth) + offsets) == 1
    assert pair_accuracy(truth, -truth + offsets) == 0
    assert pair_accuracy(truth, np.zeros_like(truth)) == 0.5


@pytest.mark.filterwarnings("error")
def test_pair_accuracy_without_a_pair_is_nan() -> None:
    assert np.isnan(pair_accuracy([[1, 1]], [[1, 2]]))
    assert np.isnan(pooled_share([0.0], [0]))


def test_pair_accuracy_of_matched_pairs_is_a_win_rate() -> None:
    truth = np.array([[1.0, 0.0]] * 4)
    assert pair_accuracy(truth, [[1, 0], [2, 1], [0, 3], [1, 1]]) == 2.5 / 4


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: auc([1, np.nan], [0, 1]), r"scores: got nan at index \[1\]"),
        (lambda: auc([1, np.inf], [0, 1]), "scores: got inf"),
        (lambda: auc([1, 2], [1, 1]), "both 0 and 1, got only 1"),
        (lambda: auc([1, 2], [0, 2]), "labels: expected 0 and 1 only"),
        (lambda: auc([1, 2, 3], [0, 1]), "labels: expected shape"),
        (lambda: auc([], []), "scores: expected 1 dimension"),
        (lambda: fit_threshold([1, 2], [0, 0]), "both 0 and 1, got only 0"),
        (lambda: accuracy([1, 2], [0, 1], float("nan")), "threshold"),
        (lambda: f1([[1, 2]], [[0, 1]], 0), "scores: expected 1 dimension"),
        (lambda: pearson([1], [1]), "at least two"),
        (lambda: kendall([1, 2], [1, 2, 3]), "b: expected shape"),
        (lambda: pair_accuracy([[1], [2]], [[1], [2]]), "two completions"),
        (lambda: pair_accuracy([[1, 2]], [[1, np.nan]]), "recovered: got nan"),
        (lambda: pair_accuracy([[1, 2]], [[1, 2]], groups=[0]), "groups: expected shape"),
    ],
)
def test_bad_arguments_are_named(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
