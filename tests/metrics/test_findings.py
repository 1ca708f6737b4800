"""What stands out: by hand, against an independent computation, and under chance alone."""

import numpy as np
import pytest
from scipy.stats import norm

from irl_exp.metrics.findings import presence, stand_out

RNG = np.random.default_rng(0)
SHAPE = (400, 8)


def test_a_word_is_there_or_not_whatever_its_case() -> None:
    texts = ["One, two", "two TWO", "three don't", "one", "and two", "two"]
    found = presence(texts, (3, 2), minimum=1)
    assert found["one"].tolist() == [[1, 0], [0, 1], [0, 0]]
    assert found["don't"].tolist() == [[0, 0], [1, 0], [0, 0]]
    # In both completions of the first and the third prompt it parts nothing there; "two" is in all.
    assert "two" not in found
    assert set(presence(texts, (3, 2), minimum=2)) == {"one"}


def test_what_is_planted_leads_and_what_is_expected_does_not() -> None:
    toxicity, word, length, noise = RNG.normal(size=(4, *SHAPE))
    word = (word > 1.5).astype(float)
    recovered = -toxicity + 2 * word - 0.2 * length + 0.5 * noise
    candidates = {"toxic": toxicity + 0.1 * noise, "word": word, "length": length, "none": noise**2}
    table = stand_out(recovered, [toxicity], candidates, 0.95, 4)
    assert table["name"].tolist()[:1] == ["word"] and table["correlation"][0] > 0.5
    assert table.set_index("name").loc["length", "correlation"] < -0.2
    outside = table[(table["low"] > 0) | (table["high"] < 0)]["name"].tolist()
    assert "none" not in outside
    # Nothing is expected: then it is the toxicity that leads.
    assert stand_out(recovered, [], candidates, 0.95, 4)["name"][0] == "toxic"


def test_a_partial_correlation_is_that_of_residuals() -> None:
    """By least squares with an intercept for each prompt."""
    x, y, z = RNG.normal(size=(3, 50, 4))
    y = y + 0.4 * x + z + RNG.normal(size=(50, 1))
    design = np.column_stack([np.kron(np.eye(50), np.ones((4, 1))), z.ravel()])
    left = [v.ravel() - design @ np.linalg.lstsq(design, v.ravel(), rcond=None)[0] for v in (x, y)]
    table = stand_out(y, [z], {"x": x}, 0.9, 1)
    assert table["correlation"][0] == pytest.approx(np.corrcoef(*left)[0, 1])


def test_the_standard_error_is_that_of_resampled_prompts() -> None:
    x, y = RNG.normal(size=(2, 300, 4))
    y = y + 0.5 * x * (1 + np.abs(RNG.normal(size=(300, 1))))
    table = stand_out(y, [], {"x": x}, 0.95, 1)
    half = (table["high"][0] - table["low"][0]) / 2 / norm.ppf(0.975)
    drawn = []
    for _ in range(600):
        rows = RNG.integers(300, size=300)
        drawn.append(stand_out(y[rows], [], {"x": x[rows]}, 0.95, 1)["correlation"][0])
    assert half == pytest.approx(np.std(drawn), rel=0.15)


def test_by_chance_nothing_stands_out_in_nineteen_of_twenty() -> None:
    """200 studies of 40 candidates each, none of which has a part in the reward."""
    wrong = 0
    for _ in range(200):
        columns = RNG.normal(size=(41, 60, 4))
        candidates = {str(i): column for i, column in enumerate(columns[1:])}
        table = stand_out(columns[0], [], candidates, 0.95, 40)
        wrong += bool(((table["low"] > 0) | (table["high"] < 0)).any())
    assert wrong <= 22  # 10 expected, and three standard deviations


def test_what_never_varies_is_not_a_finding() -> None:
    table = stand_out(RNG.normal(size=SHAPE), [], {"constant": np.ones(SHAPE)}, 0.95, 1)
    assert table.empty
