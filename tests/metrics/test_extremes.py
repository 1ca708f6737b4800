"""Rewards of any size, all alike or nearly: every metric stays in its range, or is NaN where it has
no meaning; and none depends on the unit."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from irl_exp.metrics import agreement, behavior, changes, reward_distance, shortcuts

Floats = NDArray[np.float64]
PROMPTS, K = 6, 4
LABELS = np.arange(PROMPTS * K) % 2
UNITS = (1e-6, 1.0, 1e6)


@st.composite
def rewards(draw: st.DrawFn) -> Floats:
    """[PROMPTS, K]: all alike, of two values, one that stands out, or of normal noise."""
    unit, shift = draw(st.sampled_from(UNITS)), draw(st.sampled_from([0.0, 1.0, 1e4, -1e4]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    match draw(st.sampled_from(["alike", "two", "one", "noise"])):
        case "alike":
            found = np.zeros((PROMPTS, K))
        case "two":
            found = rng.choice([-1.0, 1.0], (PROMPTS, K))
        case "one":
            found = np.zeros((PROMPTS, K))
            found[rng.integers(PROMPTS), rng.integers(K)] = 1
        case _:
            found = rng.normal(size=(PROMPTS, K))
    return unit * (found + shift)


Metric = Callable[[Floats, Floats], float]
# Of R̂ and R* [PROMPTS, K]; and the range.
METRICS: dict[str, tuple[Metric, float, float]] = {
    "auc": (lambda a, b: agreement.auc(a.ravel(), LABELS), 0, 1),
    "accuracy at the fitted threshold": (
        lambda a, b: agreement.accuracy(
            a.ravel(), LABELS, agreement.fit_threshold(a.ravel(), LABELS)
        ),
        0,
        1,
    ),
    "f1": (
        lambda a, b: agreement.f1(a.ravel(), LABELS, agreement.fit_threshold(a.ravel(), LABELS)),
        0,
        1,
    ),
    "accuracy at zero": (lambda a, b: agreement.accuracy_at_zero(a.ravel(), LABELS), 0, 1),
    "pearson": (lambda a, b: agreement.pearson(a.ravel(), b.ravel()), -1, 1),
    "spearman": (lambda a, b: agreement.spearman(a.ravel(), b.ravel()), -1, 1),
    "kendall": (lambda a, b: agreement.kendall(a.ravel(), b.ravel()), -1, 1),
    "pair accuracy": (lambda a, b: agreement.pair_accuracy(b, a), 0, 1),
    "starc": (reward_distance.starc, 0, 1),
    "correlation within prompts": (shortcuts.correlation, -1, 1),
    "best of two": (
        lambda a, b: float(changes.best_of(a, (b - b.min()) / (np.ptp(b) or 1), 2).mean()),
        0,
        1,
    ),
    "optimality of the reference": (
        lambda a, b: behavior.optimality(a, np.zeros(PROMPTS), a, float(np.ptp(a)) or 1.0),
        -1e-9,
        1e-9,
    ),
}


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.filterwarnings("error")
def test_the_range_holds_and_the_unit_does_not_matter(name: str) -> None:
    metric, low, high = METRICS[name]
    seen = []

    @settings(max_examples=300, deadline=None, derandomize=True, database=None)
    @given(a=rewards(), b=rewards())
    def holds(a: Floats, b: Floats) -> None:
        found = metric(a, b)
        seen.append(found)
        if np.isnan(found):
            assert flat(a) or flat(b)
        else:
            assert low - 1e-12 <= found <= high + 1e-12
        for unit in UNITS[::2] if "zero" not in name else (2.0**20,):
            again = metric(unit * a, unit * b)
            assert again == pytest.approx(found, abs=1e-6, nan_ok=True)

    holds()
    assert np.isfinite(seen).any()


def flat(found: Floats) -> bool:
    """Of one value within each prompt."""
    return bool((np.ptp(found, axis=1) == 0).all())


def test_probabilities_and_thresholds_are_finite() -> None:
    @settings(max_examples=300, deadline=None, derandomize=True, database=None)
    @given(a=rewards())
    def holds(a: Floats) -> None:
        assert np.isfinite(agreement.fit_threshold(a.ravel(), LABELS))
        assert np.isfinite(agreement.fit_probability(a.ravel(), LABELS)).all()

    holds()
