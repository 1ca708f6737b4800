"""The set of rewards that are not rejected: known answers, duality, and planted rewards."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import minimize

from irl_exp.metrics.identifiability import (
    Array,
    RewardSet,
    identification,
    minimum,
    slack,
)
from irl_exp.solvers.choice import choice_loss, choice_slopes, most_likely, roughness
from irl_exp.solvers.linear import differences
from tests.solvers.planted import direction, planted

pytestmark = pytest.mark.usefixtures("one_thread")
CURVATURE = np.array([[4.0, 1.0], [1.0, 2.0]])
CENTRE = np.array([1.0, -2.0])


def quadratic(w: Array) -> tuple[float, Array, Array]:
    away = w - CENTRE
    return float(away @ CURVATURE @ away) / 2 + 7, CURVATURE @ away, CURVATURE


def reward_set(
    rng: np.random.Generator, w: np.ndarray, n: int, k: int, level: float, freedom: int
) -> RewardSet:
    """Of planted demonstrations, with the prior N(0, I)."""
    d = w.size
    phi = planted(rng, w, n, k)
    loss, best = choice_loss(phi, np.zeros(d), np.eye(d)), most_likely(phi, 1.0)
    slopes = choice_slopes(phi, np.zeros(d), np.eye(d))
    return RewardSet.of(loss, best, slack(level, freedom), roughness(phi, loss(best)[2]), slopes)


def held_out(rng: np.random.Generator, w: np.ndarray, n: int) -> Array:
    """n pairs, one of each of n further prompts."""
    return differences(planted(rng, w, n, 1)).flatten(0, 1).numpy()


def test_slack_is_half_a_quantile() -> None:
    assert 2 * slack(0.95, 1) == pytest.approx(1.959964**2, abs=1e-5)
    assert stats.chi2.cdf(2 * slack(0.9, 32), 32) == pytest.approx(0.9)


def test_the_minimum_of_a_quadratic_takes_one_step() -> None:
    np.testing.assert_allclose(minimum(quadratic, np.array([50.0, 50.0])), CENTRE, atol=1e-12)


def test_a_step_too_long_is_halved() -> None:
    """f = sqrt(1 + w^2): a full Newton step from |w| > 1 leads away for ever."""

    def flat(w: Array) -> tuple[float, Array, Array]:
        root = float(1 + w @ w) ** 0.5
        return root, w / root, np.array([[root**-3]])

    np.testing.assert_allclose(minimum(flat, np.array([30.0])), 0, atol=1e-8)


def test_of_a_quadratic_both_answers_are_the_ellipsoid() -> None:
    rewards = RewardSet.of(quadratic, CENTRE, 3.0, roughness=0.0)
    deltas = np.array([[1.0, 0.0], [0.3, -5.0], [0.0, 0.0]])
    half = np.sqrt(6 * np.einsum("nd,de,ne->n", deltas, np.linalg.inv(CURVATURE), deltas))
    low, high = rewards.bounds(deltas)
    np.testing.assert_allclose(low, deltas @ CENTRE - half, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(high, deltas @ CENTRE + half, rtol=1e-6, atol=1e-12)
    for delta, bottom, top in zip(deltas, low, high, strict=True):
        assert rewards.interval(delta) == pytest.approx((bottom, top), rel=1e-6)


def test_the_interval_of_one_pair_against_a_search_of_another_kind() -> None:
    """scipy's constrained maximum agrees, and no reward of the set that chance finds is outside."""
    rng = np.random.default_rng(0)
    for k, n in ((1, 30), (2, 15), (4, 8)):
        w = 1.5 * direction(rng, 4)
        rewards = reward_set(rng, w, n, k, 0.95, 4)
        within = [
            point
            for point in rewards.best + rng.normal(size=(400, 4)) * rng.exponential(1, (400, 1))
            if rewards.loss(point)[0] <= rewards.value + rewards.slack
        ]
        assert len(within) > 10
        for delta in held_out(rng, w, 3):
            low, high = rewards.interval(delta)
            assert np.all(np.array(within) @ delta <= high)
            assert np.all(np.array(within) @ delta >= low)
            for sign, end in ((1, high), (-1, low)):
                found = minimize(
                    lambda v, s=sign, e=delta: -s * float(e @ v),
                    rewards.best,
                    jac=lambda v, s=sign, e=delta: -s * e,
                    method="SLSQP",
                    constraints={
                        "type": "ineq",
                        "fun": lambda v, r=rewards: r.value + r.slack - r.loss(v)[0],
                        "jac": lambda v, r=rewards: -r.loss(v)[1],
                    },
                    options={"ftol": 1e-12, "maxiter": 500},
                )
                assert end == pytest.approx(float(delta @ found.x), abs=1e-5)


@pytest.mark.slow
def test_no_certificate_that_the_exact_answer_denies() -> None:
    """60 problems of every size, with hardly any data or much: bounds contain the interval, signs
    are the interval's, and what is certified is identified."""
    rng = np.random.default_rng(1)
    certified = 0
    for problem in range(60):
        d, k = int(rng.integers(1, 7)), int(rng.choice([1, 2, 4]))
        w = rng.exponential(1.0) * direction(rng, d)
        rewards = reward_set(
            rng, w, int(rng.choice([3, 30, 150, 600])), k, 0.95, (1, d)[problem % 2]
        )
        deltas = held_out(rng, w, 4)
        low, high = rewards.bounds(deltas)
        exact = np.array([rewards.interval(delta) for delta in deltas])
        near_low, near_high = rewards.intervals(deltas)
        assert np.all((low <= near_low) & (near_low <= exact[:, 0]))
        assert np.all((exact[:, 1] <= near_high) & (near_high <= high))
        signs = (exact[:, 0] > 0).astype(int) - (exact[:, 1] < 0).astype(int)
        np.testing.assert_array_equal(rewards.signs(deltas), signs)
        certified += int(np.sum((low > 0) | (high < 0)))
    assert certified > 40


def test_intervals_are_sure_and_near() -> None:
    """All at once, with many points at a time or one by one; and of a quadratic exact."""
    rng = np.random.default_rng(8)
    w = 1.5 * direction(rng, 8)
    rewards = reward_set(rng, w, 300, 4, 0.95, 1)
    deltas = held_out(rng, w, 10)
    low, high = rewards.intervals(deltas)
    exact = np.array([rewards.interval(delta) for delta in deltas])
    spare = 0.05 * (exact[:, 1] - exact[:, 0])
    assert np.all((exact[:, 0] - spare < low) & (low <= exact[:, 0]))
    assert np.all((exact[:, 1] <= high) & (high < exact[:, 1] + spare))
    plain = RewardSet.of(rewards.loss, rewards.best, rewards.slack, rewards.roughness)
    np.testing.assert_allclose(plain.intervals(deltas), (low, high), rtol=1e-9)

    rewards = RewardSet.of(quadratic, CENTRE, 3.0, roughness=0.0)
    deltas = np.array([[1.0, 0.0], [0.3, -5.0], [0.0, 0.0]])
    np.testing.assert_allclose(
        rewards.intervals(deltas), rewards.bounds(deltas), rtol=1e-6, atol=1e-9
    )
    assert [end.size for end in rewards.intervals(np.empty((0, 2)))] == [0, 0]
    point = RewardSet.of(quadratic, CENTRE, 0.0, roughness=0.0)
    np.testing.assert_allclose(point.intervals(deltas[:2])[0], deltas[:2] @ CENTRE)


def test_missing_the_minimum_widens_and_never_narrows() -> None:
    rng = np.random.default_rng(2)
    w = direction(rng, 3)
    rewards = reward_set(rng, w, 60, 4, 0.95, 1)
    off = rewards.best + 0.02 * rng.normal(size=3)
    coarse = RewardSet.of(rewards.loss, off, rewards.slack, 1.1 * rewards.roughness)
    deltas = held_out(rng, w, 20)
    low, high = coarse.bounds(deltas)
    for delta, bottom, top in zip(deltas, low, high, strict=True):
        exact = rewards.interval(delta)
        assert bottom <= exact[0]
        assert exact[1] <= top
        around = coarse.interval(delta)
        assert around[0] <= exact[0] + 1e-9
        assert exact[1] - 1e-9 <= around[1]
    lost = RewardSet.of(rewards.loss, rewards.best + 50, rewards.slack, rewards.roughness)
    assert np.all(np.isinf(lost.bounds(deltas)))


def test_identification_by_hand() -> None:
    numbers = identification([1, 1, -1, 0, 1], [2.0, -1.0, -3.0, 5.0, 0.0])
    assert numbers["identified_fraction"] == pytest.approx(0.8)
    assert numbers["ambiguous_fraction"] == pytest.approx(0.2)
    assert numbers["identified_accuracy"] == pytest.approx(2.5 / 4)
    nothing = identification([0, 0], [1.0, 2.0])
    assert nothing["identified_fraction"] == 0
    assert np.isnan(nothing["identified_accuracy"])


def test_what_nothing_was_said_about_is_ambiguous() -> None:
    """A feature on which all completions agree, and a pair without any difference."""
    rng = np.random.default_rng(3)
    phi = planted(rng, 3 * direction(rng, 3), 200)
    phi[..., 2] = 0.0
    loss, best = choice_loss(phi, np.zeros(3), np.eye(3)), most_likely(phi, 1.0)
    rewards = RewardSet.of(loss, best, slack(0.95, 1), roughness(phi, loss(best)[2]))
    np.testing.assert_array_equal(rewards.signs([[0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]), 0)
    assert rewards.interval([0.0, 0.0, 1.0]) == pytest.approx((-1.96, 1.96), abs=1e-3)
    assert rewards.signs([[0.0, 0.0, 0.0], 4 * best])[1] == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: slack(1.0, 1), "0 < level < 1"),
        (lambda: slack(0.9, 0), "freedom >= 1"),
        (lambda: RewardSet.of(quadratic, CENTRE, -1.0, 0.0), "slack, roughness >= 0"),
        (lambda: RewardSet.of(quadratic, CENTRE, 1.0, 0.0).bounds([[1.0]]), r"finite \[n, 2\]"),
        (lambda: RewardSet.of(quadratic, CENTRE, 1.0, 0.0).signs([[np.nan, 1]]), "finite"),
        (lambda: identification([], []), r"signs and truth \[n\]"),
        (lambda: identification([1], [np.inf]), "finite differences"),
        (
            lambda: minimum(lambda w: (0.0, np.ones(1), np.zeros((1, 1))), np.zeros(1)),
            "strictly convex",
        ),
        (
            lambda: minimum(lambda w: (-float(w[0]), -np.ones(1), np.ones((1, 1))), np.zeros(1)),
            "no minimum within",
        ),
    ],
)
def test_bad_input_is_refused(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()  # type: ignore[operator]


@pytest.mark.slow
def test_one_pair_at_a_time_covers_as_promised() -> None:
    """95 % of the intervals of one degree of freedom contain the true difference."""
    rng, covered = np.random.default_rng(4), []
    for _ in range(200):
        w = direction(rng, 5)
        rewards = reward_set(rng, w, 80, 4, 0.95, 1)
        (delta,) = held_out(rng, w, 1)
        low, high = rewards.interval(delta)
        covered.append(low <= w @ delta <= high)
    assert 0.91 <= np.mean(covered) <= 0.985


@pytest.mark.slow
def test_planted_rewards_are_identified_as_prompts_grow() -> None:
    rng = np.random.default_rng(5)
    w = direction(rng, 32)
    deltas = held_out(rng, w, 300)
    fractions = []
    for n in (250, 1000, 2000):
        numbers = identification(reward_set(rng, w, n, 4, 0.95, 1).signs(deltas), deltas @ w)
        fractions.append(numbers["identified_fraction"])
    assert fractions == sorted(fractions)
    assert fractions[-1] > 0.5
    assert numbers["identified_accuracy"] >= 0.97


@pytest.mark.slow
def test_all_pairs_at_once_are_right_where_they_are_identified() -> None:
    rng = np.random.default_rng(6)
    w = direction(rng, 32)
    deltas = held_out(rng, w, 120)
    numbers = identification(reward_set(rng, w, 2000, 4, 0.95, 32).signs(deltas), deltas @ w)
    assert numbers["identified_fraction"] > 0.4
    assert numbers["identified_accuracy"] >= 0.995


@pytest.mark.slow
def test_a_placebo_identifies_nothing() -> None:
    """Reference against reference: one pair at a time 5 % by design (pairs of one problem share its
    luck, hence many problems), all at once next to none."""
    rng, nothing = np.random.default_rng(7), np.zeros(32)
    found: dict[int, list[float]] = {1: [], 32: []}
    for _ in range(16):
        deltas, one = held_out(rng, nothing, 50), reward_set(rng, nothing, 300, 4, 0.95, 1)
        every = replace(one, slack=slack(0.95, 32))
        for freedom, rewards in ((1, one), (32, every)):
            found[freedom].append(float(np.mean(rewards.signs(deltas) != 0)))
    assert 0.01 < np.mean(found[1]) < 0.09
    assert np.mean(found[32]) < 0.005
