"""Behavior of policies that are small enough to enumerate."""

from collections.abc import Callable

import numpy as np
import pytest

from irl_exp.metrics.behavior import (
    distinct_n,
    effective_sample_size,
    expected_max_toxicity,
    optimal_return,
    optimality,
    tilted_kl,
    tilted_weights,
    toxicity_probability,
)


def test_distinct_n_by_hand() -> None:
    # Bigrams: a b, b a, a b | b a; two distinct of four. No bigram runs across two texts.
    texts = ["a b  a\nb", "b a"]
    assert distinct_n(texts) == 2 / 4
    assert distinct_n(texts, n=1) == 2 / 6
    assert distinct_n(texts, n=4) == 1
    assert distinct_n(["one", ""]) == 0
    assert distinct_n([]) == 0


def test_the_worst_completion_of_each_prompt_counts() -> None:
    probabilities = [[0.1, 0.9, 0.2], [0.3, 0.3, 0.4]]
    assert expected_max_toxicity(probabilities) == pytest.approx((0.9 + 0.4) / 2)
    # Of one completion each, the mean; more of them never make it less.
    assert expected_max_toxicity([[0.1], [0.3]]) == pytest.approx(0.2)


def test_one_toxic_completion_makes_a_toxic_prompt() -> None:
    toxic = np.array([[0, 1, 1], [0, 0, 0], [1, 0, 0], [0, 0, 0]], dtype=bool)
    assert toxicity_probability(toxic) == 2 / 4 > toxic.mean()


def test_effective_sample_size_by_hand() -> None:
    # Weights 1, 1, 2: 16 / 6. Equal ones: 3. One alone: 1.
    logs = [[0, 0, np.log(2)], [5, 5, 5], [0, -np.inf, -np.inf]]
    assert effective_sample_size(logs) == pytest.approx([16 / 6, 3, 1])


@pytest.mark.filterwarnings("error")
def test_huge_rewards_do_not_overflow() -> None:
    rewards = np.array([[1e6, 1e6 - np.log(3)], [-1e6, -1e6 - np.log(3)]])
    assert effective_sample_size(rewards) == pytest.approx([1.6, 1.6])
    assert tilted_weights(rewards, 1.0) == pytest.approx(np.array([[0.75, 0.25]] * 2))
    assert optimal_return(rewards, 1.0) == pytest.approx(np.log(4 / 6))


def test_tilted_weights_by_hand() -> None:
    rewards = 0.5 * np.log([[1, 2, 5], [2, 2, 2]])
    assert tilted_weights(rewards, 0.5) == pytest.approx(np.array([[1, 2, 5], [8 / 3] * 3]) / 8)
    # A larger beta stays closer to the reference.
    assert tilted_weights(rewards, 1e9)[0] == pytest.approx([1 / 3] * 3)


@pytest.mark.filterwarnings("error")
def test_tilted_kl_by_hand() -> None:
    weights = [[0.25] * 4, [1.0, 0.0, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0], [0.5, 0.25, 0.25, 0.0]]
    expected = np.log([1, 4, 2, 2**0.5])  # last: 0.5 log 2 + 0.5 log 1
    assert tilted_kl(weights) == pytest.approx(expected)


def test_tilted_kl_stays_below_its_cap() -> None:
    rewards = np.random.default_rng(0).normal(size=(100, 16))
    for beta in (1e-3, 0.1, 1.0, 100.0):
        divergence = tilted_kl(tilted_weights(rewards, beta))
        assert np.all(divergence > -1e-12) and np.all(divergence <= np.log(16) + 1e-12)


def test_optimal_return_is_what_the_tilted_weights_earn() -> None:
    # Donsker-Varadhan with equality: J* = E_w R - beta KL(w || uniform).
    rewards, beta = np.random.default_rng(1).normal(size=(20, 64)), 0.4
    weights = tilted_weights(rewards, beta)
    earned = np.sum(weights * rewards, axis=1) - beta * tilted_kl(weights)
    assert optimal_return(rewards, beta) == pytest.approx(earned.mean())


def test_no_other_weights_earn_more_than_the_optimal_return() -> None:
    rng = np.random.default_rng(2)
    rewards, beta = rng.normal(size=(1, 8)), 0.4
    others = rng.dirichlet(np.ones(8), size=500)
    earned = others @ rewards[0] - beta * tilted_kl(others)
    assert np.max(earned) < optimal_return(rewards, beta)


def test_optimal_return_never_pools_prompts() -> None:
    # Two prompts with constant rewards: nothing to gain on either. Pooled it would be above 0.
    assert optimal_return([[1, 1], [-1, -1]], beta=0.1) == 0


@pytest.mark.parametrize(("samples", "expected"), [(8, 0.70), (32, 0.87), (256, 0.97)])
def test_optimal_return_is_biased_low_as_documented(samples: int, expected: float) -> None:
    rewards = np.random.default_rng(3).normal(size=(4000, samples))
    assert optimal_return(rewards, beta=0.5) == pytest.approx(expected, abs=0.03)


BETA = 0.7
# Two prompts, four equally likely samples of the reference policy. On the first it writes three
# completions with probabilities 1/2, 1/4, 1/4 and exp(R / beta) = 1, 2, 4: Z = 2, tilted to 1/4,
# 1/4, 1/2. On the second it writes two with 1/4, 3/4 and exp((R - 5) / beta) = 1, 1/3: Z = 1/2,
# tilted to 1/2, 1/2.
REFERENCE = np.array([[0, 0, 0, 0], [5, 5, 5, 5]]) + BETA * np.log(
    [[1.0, 1.0, 2.0, 4.0], [1.0, 1 / 3, 1 / 3, 1 / 3]]
)
TILTED = np.array([[0, 0, 0, 0], [5, 5, 5, 5]]) + BETA * np.log(
    [[1.0, 2.0, 4.0, 4.0], [1.0, 1.0, 1 / 3, 1 / 3]]
)
TILTED_KL = np.log([[1 / 2, 1, 2, 2], [2, 2, 2 / 3, 2 / 3]])  # log of tilted / reference


def test_optimal_return_of_an_enumerable_policy() -> None:
    # Mean of beta log 2 and 5 + beta log 1/2.
    assert optimal_return(REFERENCE, BETA) == pytest.approx(2.5)


def test_the_tilted_policy_is_optimal() -> None:
    assert optimality(TILTED, TILTED_KL, REFERENCE, BETA) == pytest.approx(1)
    assert optimality(TILTED, TILTED_KL.mean(axis=1), REFERENCE, BETA) == pytest.approx(1)


def test_the_reference_policy_has_gained_nothing() -> None:
    assert optimality(REFERENCE, [0, 0], REFERENCE, BETA) == pytest.approx(0, abs=1e-12)


def test_optimality_by_hand_away_from_the_optimum() -> None:
    # One prompt, R = 0 or beta log 3 at equal odds: E_ref R = beta log(3) / 2, J* = beta log 2.
    # Always writing the better one costs log 2 nats: J = beta log(3/2).
    reference = BETA * np.log([[1.0, 3.0]])
    expected = (np.log(3 / 2) - np.log(3) / 2) / (np.log(2) - np.log(3) / 2)
    greedy = optimality(reference[:, 1:], [np.log(2)], reference, BETA)
    assert greedy == pytest.approx(expected) and greedy < 1
    # Twice the KL for the same reward is worse than doing nothing.
    assert optimality(reference[:, 1:], [2 * np.log(2)], reference, BETA) < 0


def test_optimality_ignores_prompt_offsets() -> None:
    offsets = np.array([[100.0], [-300.0]])
    assert optimality(TILTED + offsets, TILTED_KL, REFERENCE + offsets, BETA) == pytest.approx(1)


@pytest.mark.filterwarnings("error")
def test_optimality_is_nan_where_nothing_can_be_gained() -> None:
    constant = np.full((1, 3), 0.7)
    assert constant.mean() < 0.7  # rounding alone would make a gain look possible
    assert np.isnan(optimality(constant, [0.0], constant, BETA))
    assert np.isnan(optimality(constant, [1.5], constant, BETA))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: distinct_n(["a"], n=0), "n: expected at least 1"),
        (lambda: expected_max_toxicity([0.5, 1]), "probabilities: expected"),
        (lambda: expected_max_toxicity([[np.nan]]), "probabilities: got nan"),
        (lambda: toxicity_probability(np.zeros((0, 4))), "toxic: expected"),
        (lambda: effective_sample_size([[0, np.nan]]), "log_weights: row 0"),
        (lambda: effective_sample_size([[0.0, 1.0], [-np.inf, -np.inf]]), "log_weights: row 1"),
        (lambda: effective_sample_size([0, 1]), "log_weights: expected"),
        (lambda: tilted_weights([[0, np.nan]], 1), r"rewards: got nan at index \[0, 1\]"),
        (lambda: tilted_weights([[0, 1]], 0), "beta"),
        (lambda: tilted_kl([[0.5, 0.6]]), "weights: expected rows"),
        (lambda: tilted_kl([[1.5, -0.5]]), "weights: expected rows"),
        (lambda: optimal_return([[]], 1), "rewards: expected"),
        (lambda: optimal_return([[0, 1]], float("nan")), "beta"),
        (lambda: optimality([[1]], [0], [[1], [2]], 1), "reference_rewards: expected 1 rows"),
        (lambda: optimality([[1, 2]], [0, 0], [[1]], 1), "expert_kl: expected shape"),
        (lambda: optimality([[1]], [np.nan], [[1]], 1), "expert_kl: expected finite"),
    ],
)
def test_bad_arguments_are_named(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
