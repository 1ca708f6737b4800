"""What members agree on, against answers by hand."""

import numpy as np
import pytest

from irl_exp.metrics.disagreement import agreed_signs, disagreement


def test_signs_by_hand() -> None:
    """Two prompts, two members, k = 2: pairs are (a1, r1), (a1, r2), (a2, r1), (a2, r2)."""
    members = [
        [[3, 1, 2, 0], [9, 2, 4, 1]],  # both: a1 above all, a2 between r2 and r1
        [[1, 0, 1, 2], [5, 0, 4, 6]],  # r2 above all; a1 ties with r1 for one of them
    ]
    assert agreed_signs(members).tolist() == [[1, 1, -1, 1], [0, -1, -1, -1]]


def test_one_dissenter_is_enough() -> None:
    members = np.zeros((1, 5, 2))
    members[:, :, 0] = 1
    assert agreed_signs(members).tolist() == [[1]]
    members[:, 4, 0] = -1
    assert agreed_signs(members).tolist() == [[0]]


def test_members_of_chance_agree_as_often_as_coins() -> None:
    members = np.random.default_rng(0).normal(size=(20_000, 5, 2))
    assert np.mean(agreed_signs(members) != 0) == pytest.approx(2 / 2**5, abs=0.005)


def test_disagreement_by_hand() -> None:
    """+-1 and +-3: the mean is +-2, of standard deviation 2; the members lie 1 to either side."""
    assert disagreement([[[1, -1], [3, -3]]]) == pytest.approx(2**0.5 / 2)
    assert disagreement([[[1, -1], [1, -1]]]) == 0
    assert np.isnan(disagreement([[[1, -1], [-1, 1]]]))


def test_what_is_not_identified_is_no_disagreement() -> None:
    """A constant for each member and prompt; nor does the scale that all share matter."""
    rng = np.random.default_rng(0)
    members = rng.normal(size=(30, 4, 6))
    shifted = 7 * members + rng.normal(size=(30, 4, 1)) * 100
    assert disagreement(shifted) == pytest.approx(disagreement(members))


def test_noise_is_measured() -> None:
    """A reward of standard deviation 1, and noise of 0.3 on each of m members: their mean has the
    variance 1 + 0.09 / m, and a standard deviation over m is short by some 1 / (4 m - 4)."""
    rng = np.random.default_rng(1)
    truth = rng.normal(size=(4000, 1, 16))
    for m in (10, 40):
        members = truth + 0.3 * rng.normal(size=(4000, m, 16))
        expected = 0.3 * (1 - 1 / (4 * m - 4)) / (1 + 0.09 / m) ** 0.5
        assert disagreement(members) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("shape", [(4,), (2, 4), (2, 1, 4), (2, 3, 3), (0, 2, 4)])
def test_shapes_that_are_refused(shape: tuple[int, ...]) -> None:
    for function in (agreed_signs, disagreement):
        with pytest.raises(ValueError, match="expected"):
            function(np.zeros(shape))


def test_scores_must_be_finite() -> None:
    with pytest.raises(ValueError, match="finite"):
        agreed_signs([[[1, np.nan], [1, 2]]])
