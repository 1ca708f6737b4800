"""STARC: invariances, metric axioms and answers worked by hand."""

import numpy as np
import pytest

from irl_exp.metrics.reward_distance import centred, starc, starc_matrix


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_centred_by_hand() -> None:
    assert centred([[1, 2, 6], [4, 4, 4]]).tolist() == [[-2, -1, 3], [0, 0, 0]]


def test_a_constant_row_is_centred_to_exact_zeros() -> None:
    assert np.mean([0.1] * 3) != 0.1  # what plain subtraction of the mean would trip over
    assert not np.any(centred([[0.1] * 3]))


def test_zero_under_a_positive_scale_and_prompt_offsets(rng: np.random.Generator) -> None:
    reward = rng.normal(size=(50, 4))
    assert starc(reward, 3 * reward + 10 * rng.normal(size=(50, 1))) < 1e-12


def test_one_under_negation(rng: np.random.Generator) -> None:
    reward = rng.normal(size=(50, 4))
    assert starc(reward, 7 - 2 * reward) == pytest.approx(1, abs=1e-12)


def test_raw_correlation_misses_what_centring_sees() -> None:
    # On each prompt b is a plus an offset, so the two are the same reward. The offsets alone make
    # the raw scores (0, 1, 10, 11) and (10, 11, 0, 1) correlate negatively:
    # deviations (-5.5, -4.5, 4.5, 5.5) and (4.5, 5.5, -5.5, -4.5), r = -4 * 24.75 / 101.
    a, b = np.array([[0, 1], [10, 11]]), np.array([[10, 11], [0, 1]])
    assert np.corrcoef(a.ravel(), b.ravel())[0, 1] == pytest.approx(-99 / 101)
    assert starc(a, b) == 0


def test_is_the_pearson_distance_of_centred_scores(rng: np.random.Generator) -> None:
    a, b = rng.normal(size=(2, 30, 5))
    b += a
    rho = np.corrcoef(
        (a - a.mean(1, keepdims=True)).ravel(), (b - b.mean(1, keepdims=True)).ravel()
    )[0, 1]
    assert starc(a, b) == pytest.approx(np.sqrt((1 - rho) / 2), abs=1e-12)


def test_two_completions_give_the_cosine_of_pair_differences(rng: np.random.Generator) -> None:
    a, b = rng.normal(size=(2, 30, 2))
    left, right = a[:, 1] - a[:, 0], b[:, 1] - b[:, 0]
    cosine = left @ right / np.linalg.norm(left) / np.linalg.norm(right)
    assert starc(a, b) == pytest.approx(np.sqrt((1 - cosine) / 2), abs=1e-12)
    # By hand: differences (3, 4) and (4, 3) have cosine 24/25.
    assert starc([[0, 3], [0, 4]], [[1, 5], [2, 5]]) == pytest.approx(np.sqrt(1 / 50))


def test_symmetry_and_triangle_inequality(rng: np.random.Generator) -> None:
    for _ in range(200):
        a, b, c = rng.normal(size=(3, 3, 2))
        assert starc(a, b) == starc(b, a)
        assert starc(a, c) <= starc(a, b) + starc(b, c) + 1e-12


def test_the_matrix_has_the_distance_of_every_two(rng: np.random.Generator) -> None:
    rewards = rng.normal(size=(4, 30, 3))
    rewards[2] = rewards[0] * 3 + 1  # the same
    rewards[3] = 7.0  # constant
    found = starc_matrix(rewards)
    for i, j in np.ndindex(4, 4):
        assert found[i, j] == pytest.approx(starc(rewards[i], rewards[j]), abs=1e-12)
    assert (np.diag(found) == 0).all() and (found == found.T).all()


def test_constant_rewards(rng: np.random.Generator) -> None:
    reward = rng.normal(size=(20, 3))
    constant = np.repeat(rng.normal(size=(20, 1)), 3, axis=1)
    assert starc(reward, constant) == pytest.approx(0.5, abs=1e-12)
    assert starc(constant, reward) == pytest.approx(0.5, abs=1e-12)
    assert starc(constant, 0 * constant) == 0


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ([[1, np.nan]], [[1, 2]], "got nan"),
        ([[1, 2]], [[1, 2, 3]], "b: expected shape"),
        ([[1], [2]], [[1], [2]], "completions >= 2"),
        ([1, 2], [1, 2], "completions >= 2"),
    ],
)
def test_bad_arguments_are_named(a: list[float], b: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        starc(a, b)
