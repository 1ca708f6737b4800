"""Calibration and entropy against hand-worked answers and numerical integration."""

import numpy as np
import pytest
from scipy.special import expit

from irl_exp.metrics.uncertainty import calibration_error, entropies


def test_calibration_error_by_hand() -> None:
    # Two bins of two: (0.1, 0.3) with shares 0.5, (0.6, 0.8) with share 1: 0.3 and 0.3.
    assert calibration_error([0.6, 0.1, 0.8, 0.3], [1, 0, 1, 1], bins=2) == pytest.approx(0.3)
    # One bin sees the mean alone: 0.45 against 0.75.
    assert calibration_error([0.6, 0.1, 0.8, 0.3], [1, 0, 1, 1], bins=1) == pytest.approx(0.3)
    # As many bins as cases: the mean absolute error.
    four = calibration_error([0.6, 0.1, 0.8, 0.3], [1, 0, 1, 1], bins=99)
    assert four == pytest.approx((0.4 + 0.1 + 0.2 + 0.7) / 4)


def test_bins_are_of_equal_mass() -> None:
    """Where stated probabilities crowd, equal widths would see one bin."""
    stated = np.concatenate([np.full(50, 0.51), np.full(50, 0.52)])
    outcome = np.repeat([0, 1], 50)
    assert calibration_error(stated, outcome, bins=2) == pytest.approx((0.51 + 0.48) / 2)


def test_a_perfect_forecaster_is_as_near_zero_as_sampling_lets_it() -> None:
    rng = np.random.default_rng(0)
    stated = np.full(15_000, 0.3) + rng.uniform(-1e-6, 1e-6, 15_000)
    errors = [calibration_error(stated, rng.random(15_000) < stated) for _ in range(50)]
    assert np.mean(errors) == pytest.approx((2 / np.pi * 0.3 * 0.7 / 1000) ** 0.5, rel=0.1)


@pytest.mark.parametrize(("mean", "variance"), [(0.0, 1.0), (1.5, 4.0), (-4.0, 0.2), (0.3, 9.0)])
def test_entropies_against_integration(mean: float, variance: float) -> None:
    z = np.linspace(-60, 60, 400_001)
    weight = np.exp(-((z - mean) ** 2) / (2 * variance))
    weight /= weight.sum()

    def entropy(p: np.ndarray) -> np.ndarray:
        return -p * np.log(np.maximum(p, 1e-300)) - (1 - p) * np.log(np.maximum(1 - p, 1e-300))

    (aleatoric,), (epistemic,) = entropies([mean], [variance])
    inner = float(entropy(expit(z)) @ weight)
    assert aleatoric == pytest.approx(inner, abs=1e-5)
    total = float(entropy(np.array(expit(z) @ weight)))
    assert epistemic == pytest.approx(total - inner, abs=1e-5)


def test_limits_of_doubt() -> None:
    aleatoric, epistemic = entropies([0.0, 0.0, 800.0, 0.0], [0.0, 1e8, 1.0, 1e-12])
    np.testing.assert_allclose(aleatoric, [np.log(2), 0, 0, np.log(2)], atol=1e-3)
    np.testing.assert_allclose(epistemic, [0, np.log(2), 0, 0], atol=1e-3)
    assert np.all(epistemic >= 0)


@pytest.mark.parametrize(
    "call",
    [
        lambda: calibration_error([], []),
        lambda: calibration_error([0.5], [0, 1]),
        lambda: calibration_error([1.5], [1]),
        lambda: calibration_error([float("nan")], [1]),
        lambda: calibration_error([0.5], [2]),
        lambda: calibration_error([0.5], [1], bins=0),
        lambda: entropies([0.0], [-1.0]),
        lambda: entropies([float("inf")], [1.0]),
        lambda: entropies([0.0, 1.0], [1.0]),
    ],
)
def test_bad_arrays_are_refused(call: object) -> None:
    with pytest.raises(ValueError, match="expected"):
        call()  # type: ignore[operator]
