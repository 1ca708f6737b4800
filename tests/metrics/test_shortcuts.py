"""Shortcuts: simulations of Gaussians, whose partial correlations have closed forms."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from irl_exp.metrics.agreement import pair_accuracy, pooled_share
from irl_exp.metrics.shortcuts import (
    correlation,
    matched_pair_counts,
    partial_correlation,
    repetition,
)
from irl_exp.metrics.statistics import cluster_bootstrap

Array = NDArray[np.float64]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def simulated(
    rng: np.random.Generator, a: float, b: float, noise: float, n: int = 4000, m: int = 8
) -> tuple[Array, Array, Array]:
    """(R̂, R*, length): R̂ = a R* + b length + noise, R* and length correlated at 0.6, and for each
    of the three an offset per prompt that has nothing to say."""
    truth, other, rest = rng.normal(size=(3, n, m))
    length = 0.6 * truth + 0.8 * other
    recovered = a * truth + b * length + noise * rest
    offsets = 5 * rng.normal(size=(3, n, 1))
    return recovered + offsets[0], truth + offsets[1], length + offsets[2]


# --- correlations ---------------------------------------------------------------------------------


def test_correlation_by_hand() -> None:
    # Deviations (-1, 1), (-2, 2) and (-1, 1), (1, -1), whatever the prompts' means.
    assert correlation([[0, 2], [10, 14]], [[5, 7], [3, 1]]) == pytest.approx(-2 / np.sqrt(40))


@pytest.mark.parametrize(("a", "b", "noise"), [(1.0, 0.5, 1.0), (0.0, 1.0, 2.0), (2.0, 0.0, 1.0)])
def test_closed_forms_of_gaussians(
    a: float, b: float, noise: float, rng: np.random.Generator
) -> None:
    recovered, truth, length = simulated(rng, a, b, noise)
    # Given R*, length has variance 1 - 0.6^2 left and R̂ b^2 times that and noise; and so for R*.
    spread = np.sqrt(a**2 + b**2 + 2 * 0.6 * a * b + noise**2)
    left = 0.8
    expected = {
        "length": (b + 0.6 * a) / spread,
        "length given R*": b * left / np.sqrt((b * left) ** 2 + noise**2),
        "R* given length": a * left / np.sqrt((a * left) ** 2 + noise**2),
    }
    found = {
        "length": correlation(recovered, length),
        "length given R*": partial_correlation(recovered, length, truth),
        "R* given length": partial_correlation(recovered, truth, length),
    }
    assert found == pytest.approx(expected, abs=0.015)


def test_one_given_column_is_yules_formula(rng: np.random.Generator) -> None:
    x, y, z = simulated(rng, 1, 0.5, 1, n=20)
    xy, xz, yz = correlation(x, y), correlation(x, z), correlation(y, z)
    yule = (xy - xz * yz) / np.sqrt((1 - xz**2) * (1 - yz**2))
    assert partial_correlation(x, y, z) == pytest.approx(yule, abs=1e-12)


def test_several_given_columns_are_the_inverse_of_the_correlations(
    rng: np.random.Generator,
) -> None:
    mixing = rng.normal(size=(4, 4))
    columns = np.einsum("ij,jnm->inm", mixing, rng.normal(size=(4, 30, 5)))
    deviations = (columns - columns.mean(axis=2, keepdims=True)).reshape(4, -1)
    inverse = np.linalg.inv(deviations @ deviations.T)
    expected = -inverse[0, 1] / np.sqrt(inverse[0, 0] * inverse[1, 1])
    assert partial_correlation(*columns) == pytest.approx(expected, abs=1e-9)
    # Units and doubled columns change nothing.
    again = (columns[0], 3 * columns[1], 1e6 * columns[2], 1e-6 * columns[3], columns[3])
    assert partial_correlation(*again) == pytest.approx(expected, abs=1e-9)


@pytest.mark.filterwarnings("error")
def test_nothing_left_is_nan(rng: np.random.Generator) -> None:
    recovered, truth, length = simulated(rng, 1, 0.5, 1, n=20)
    constant = np.repeat(rng.normal(size=(20, 1)), 8, axis=1)
    assert np.isnan(correlation(recovered, constant))
    assert np.isnan(partial_correlation(recovered, 2 * truth + 1, truth))
    assert np.isnan(partial_correlation(3 * length + 7, truth, length))
    # A given column that says nothing takes nothing away.
    assert partial_correlation(recovered, truth, constant) == correlation(recovered, truth)


def test_intervals_over_prompts_cover_the_closed_form() -> None:
    """Of 95 % intervals of the partial correlation about 19 in 20 hold the true value, though each
    prompt's completions share its offsets."""
    true = 0.5 * 0.8 / np.sqrt((0.5 * 0.8) ** 2 + 1)
    held = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        recovered, truth, length = simulated(rng, 1.0, 0.5, 1.0, n=60, m=4)
        low, high = cluster_bootstrap(
            partial_correlation, None, recovered, length, truth, draws=150, rng=rng
        )
        held += low <= true <= high
    assert 52 <= held <= 59


# --- repetition and matched pairs -----------------------------------------------------------------


def test_repetition_by_hand() -> None:
    texts = [" a b c", " a b a a", "", "a  a", " . "]
    assert repetition(texts).tolist() == [0, 0.5, 0, 0.5, 0]


def test_a_reward_of_length_alone_is_at_chance_on_matched_pairs(rng: np.random.Generator) -> None:
    truth = rng.normal(size=(3000, 6))
    length = np.clip(np.round(10 + 4 * truth + 3 * rng.normal(size=truth.shape)), 1, None)
    assert pair_accuracy(truth, length) > 0.75
    assert pooled_share(*matched_pair_counts(truth, length, length, 0)) == 0.5
    # R̂ = length + 2 R* keeps on equal lengths what it has of R*, which there decides alone.
    assert pooled_share(*matched_pair_counts(truth, length + 2 * truth, length, 0)) == 1
    # Noise over lengths within a tenth of each other: a true chance of one half.
    blurred = length + 2 * rng.normal(size=truth.shape)
    assert pooled_share(*matched_pair_counts(truth, blurred, length, 0)) == pytest.approx(
        0.5, abs=0.02
    )


def test_which_pairs_are_matched() -> None:
    truth, recovered = [[1, 2, 3, 4]], [[1, 2, 3, 4]]
    lengths = [[10, 11, 12, 100]]
    # 10-11 and 11-12 differ by a share of 1/11 and 1/12 of the longer, 10-12 by 1/6.
    for tolerance, pairs in {0: 0, 0.085: 1, 0.1: 2, 0.17: 3, 1: 6}.items():
        agreeing, total = matched_pair_counts(truth, recovered, lengths, tolerance)
        assert (agreeing.tolist(), total.tolist()) == ([pairs], [pairs])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: correlation([[1, 2]], [[1, 2], [3, 4]]), "column 1: expected shape"),
        (lambda: partial_correlation([[1, 2]], [[1, 2]], [[1, 2, 3]]), "column 2: expected shape"),
        (lambda: correlation([[1, np.nan]], [[1, 2]]), "got nan"),
        (lambda: matched_pair_counts([[1, 2]], [[1, 2]], [[1, -2]], 0), "not negative"),
        (lambda: matched_pair_counts([[1, 2]], [[1, 2]], [[1, 2, 3]], 0), "comparable: expected"),
    ],
)
def test_bad_arguments_are_named(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
