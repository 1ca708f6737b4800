"""What choosing the best does, against answers by hand and against doing it."""

import numpy as np
import pytest

from irl_exp.metrics.agreement import accuracy
from irl_exp.metrics.selection import best_accuracy, best_of


def test_best_accuracy_by_hand() -> None:
    """Toxic 1 and 2, clean 3: a cut between. With 1 clean as well, one is wrong wherever it is."""
    assert best_accuracy([1, 2, 3], [1, 1, 0]) == 1
    assert best_accuracy([1, 2, 3, 1], [1, 1, 0, 0]) == 0.75
    assert best_accuracy([3, 2, 1], [1, 1, 0]) == pytest.approx(2 / 3)  # all toxic
    assert best_accuracy([5, 5, 5, 5], [0, 0, 0, 1]) == 0.75  # none


def test_best_accuracy_is_that_of_trying_every_threshold() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        scores, labels = rng.integers(0, 6, 12), rng.integers(0, 2, 12)
        tried = max(accuracy(scores, labels, cut) for cut in (-np.inf, *range(7)))
        assert best_accuracy(scores, labels) == pytest.approx(tried)


def test_best_of_by_hand() -> None:
    """Two draws of 0 and 1: of four equally likely outcomes, three hold a 1."""
    assert best_of([1, 0], 2) == (0.75, 0.0, 1.0)
    assert best_of([4, 1, 1, 2], 1) == (2.0, 1.0, 4.0)
    mean, low, high = best_of([4, 1, 1, 2], 1000)
    assert (low, high) == (4.0, 4.0) and mean == pytest.approx(4)


def test_best_of_is_what_drawing_gives() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=30)
    maxima = rng.choice(values, (100_000, 7)).max(axis=1)
    mean, low, high = best_of(values, 7)
    assert mean == pytest.approx(maxima.mean(), abs=0.01)
    assert np.mean(maxima < low) < 0.05 <= np.mean(maxima <= low)
    assert np.mean(maxima < high) < 0.95 <= np.mean(maxima <= high)


@pytest.mark.parametrize(
    ("values", "draws", "level"), [([], 1, 0.9), ([np.nan], 1, 0.9), ([1], 0, 0.9), ([1], 1, 1)]
)
def test_what_is_refused(values: list[float], draws: int, level: float) -> None:
    with pytest.raises(ValueError, match="expected"):
        best_of(values, draws, level)
