"""EPIC, DARD and STARC: distances of rewards on any finite Markov decision process.

Each first brings a reward to a canonical form, in which all rewards that differ by potential
shaping, gamma phi(s') - phi(s) (Ng et al. 1999), are one; then it compares canonical forms whose
scale is taken away. On the one-step process of a language model (a prompt as the state, its
completions as actions, then the end) all three come to `reward_distance.starc`.

Rewards are R[s, a, s'], [S, A, S]; transition probabilities T[s, a, s'], [S, A, S], in rows that
sum to 1. All functions raise ValueError for misshapen arrays, entries that are NaN or infinite,
distributions that are not, and a discount outside of [0, 1] (VAL: 1 too).
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from irl_exp.metrics.reward_distance import standardized_distance

Array = NDArray[np.float64]


def epic(
    a: ArrayLike,
    b: ArrayLike,
    *,
    discount: float,
    states: ArrayLike,
    actions: ArrayLike,
    coverage: ArrayLike,
) -> float:
    """The EPIC distance sqrt((1 - rho) / 2) of two rewards (Gleave et al., arXiv 2006.13900).

    rho is Pearson's correlation of the canonical forms over the transitions of `coverage`. Zero for
    potential shaping, positive scale and constants; it knows nothing of the dynamics, so rewards
    that differ on impossible transitions alone are apart.

    Args:
        a, b: rewards [S, A, S].
        discount: gamma.
        states, actions: the distributions D_S [S] and D_A [A] of the canonical form.
        coverage: distribution over transitions [S, A, S].

    Returns:
        A number in [0, 1]; 1/2 where one canonical form alone is constant, 0 where both are.
    """
    first, second = (
        epic_canonical(reward, discount=discount, states=states, actions=actions)
        for reward in (a, b)
    )
    return _pearson_distance(first, second, coverage)


def dard(
    a: ArrayLike,
    b: ArrayLike,
    *,
    transitions: ArrayLike,
    discount: float,
    actions: ArrayLike,
    coverage: ArrayLike,
) -> float:
    """The DARD distance sqrt((1 - rho) / 2) of two rewards (Wulfe et al., arXiv 2201.10081).

    As `epic`, with a canonical form that asks for rewards near possible transitions alone.

    Args:
        a, b: rewards [S, A, S].
        transitions: T [S, A, S].
        discount: gamma.
        actions: the distribution D_A [A] of the canonical form.
        coverage: distribution over transitions [S, A, S].
    """
    first, second = (
        dard_canonical(reward, transitions=transitions, discount=discount, actions=actions)
        for reward in (a, b)
    )
    return _pearson_distance(first, second, coverage)


def starc(
    a: ArrayLike,
    b: ArrayLike,
    *,
    transitions: ArrayLike,
    discount: float,
    policy: ArrayLike,
    weights: ArrayLike,
) -> float:
    """A STARC distance of two rewards (Skalse et al., arXiv 2309.15257): |s(a) - s(b)| / 2.

    s(R) = c(R) / |c(R)|, or c(R) where that is 0, with c the canonicalization VAL and |.| the L2
    norm weighted by `weights`, which serves as the metric too; the half brings it to [0, 1]. Zero
    exactly for rewards that order all policies alike: those that differ by potential shaping,
    positive scale and S'-redistribution, which moves reward between next states and leaves each
    E[R(s, a, S')] as it is.

    Args:
        a, b: rewards [S, A, S].
        transitions: T [S, A, S].
        discount: gamma, below 1.
        policy: pi(a | s) [S, A], any; a reward's value under it is what VAL takes away.
        weights: of the norm, positive, [S, A].

    Returns:
        A number in [0, 1]; 1/2 where one reward alone is trivial, 0 where both are.
    """
    first, second = (
        val_canonical(reward, transitions=transitions, discount=discount, policy=policy)
        for reward in (a, b)
    )
    importance = _numbers("weights", weights, first.shape)
    if np.any(importance <= 0):
        raise ValueError("weights: expected positive numbers")
    return standardized_distance(np.sqrt(importance) * first, np.sqrt(importance) * second)


# --- canonical forms ------------------------------------------------------------------------------


def epic_canonical(
    reward: ArrayLike, *, discount: float, states: ArrayLike, actions: ArrayLike
) -> Array:
    """The canonically shaped reward of EPIC, [S, A, S] (Gleave et al., definition 4.1):

        C(R)(s, a, s') = R(s, a, s') + E[gamma R(s', A, S') - R(s, A, S') - gamma R(S, A, S')]

    with S, S' ~ `states` and A ~ `actions`, all independent.
    """
    array, gamma = _reward(reward), _discount(discount)
    state = _distribution("states", states, array.shape[:1])
    action = _distribution("actions", actions, array.shape[1:2])
    mean = np.einsum("sax,a,x->s", array, action, state)
    return _unless_trivial(array + gamma * mean - mean[:, None, None] - gamma * mean @ state, array)


def dard_canonical(
    reward: ArrayLike, *, transitions: ArrayLike, discount: float, actions: ArrayLike
) -> Array:
    """The transformed reward of DARD, [S, A, S] (Wulfe et al., equation 3):

        C(R)(s, a, s') = R(s, a, s') + E[gamma R(s', A, S'') - R(s, A, S') - gamma R(S', A, S'')]

    with A ~ `actions`, one for all terms, S' ~ T(. | s, A) and S'' ~ T(. | s', A). In the last term
    S' and S'' may be an impossible step: had S'' followed S', shaping would not cancel.
    """
    array, gamma = _reward(reward), _discount(discount)
    step = _distribution("transitions", transitions, array.shape)
    action = _distribution("actions", actions, array.shape[1:2])
    mean = np.einsum("sax,sax,a->s", array, step, action)
    # [s, s'], in two products: S' after s, then S'' after s'.
    after = np.einsum("sax,xay->say", step, array)
    across = np.einsum("say,tay,a->st", after, step, action)
    canonical = array + gamma * mean - mean[:, None, None] - gamma * across[:, None, :]
    return _unless_trivial(canonical, array)


def val_canonical(
    reward: ArrayLike, *, transitions: ArrayLike, discount: float, policy: ArrayLike
) -> Array:
    """VAL, value-adjusted levelling, [S, A] (Skalse et al., arXiv 2309.15257):

        c(R)(s, a) = E[R(s, a, S') + gamma V(S')] - V(s),   S' ~ T(. | s, a),

    the same for every s', with V the value of R under `policy`: the advantage of a over it.
    """
    array, gamma = _reward(reward), _discount(discount)
    if gamma == 1:
        raise ValueError("discount: expected below 1 for a value, got 1")
    step = _distribution("transitions", transitions, array.shape)
    choice = _distribution("policy", policy, array.shape[:2])
    levelled = np.einsum("sax,sax->sa", array, step)
    moves = np.einsum("sa,sax->sx", choice, step)
    identity = np.eye(array.shape[0])
    value = np.linalg.solve(identity - gamma * moves, np.sum(choice * levelled, axis=1))
    return _unless_trivial(levelled + gamma * step @ value - value[:, None], array)


def _pearson_distance(first: Array, second: Array, coverage: ArrayLike) -> float:
    """sqrt((1 - rho) / 2) of two canonical forms, rho under a distribution over transitions."""
    weights = _numbers("coverage", coverage, first.shape)
    _distribution("coverage", weights.ravel(), (weights.size,))
    deviations = [form - np.sum(weights * form) for form in (first, second)]
    forms = zip(deviations, (first, second), strict=True)
    a, b = (np.sqrt(weights) * _unless_trivial(deviation, form) for deviation, form in forms)
    return standardized_distance(a, b)


def _unless_trivial(result: Array, source: Array) -> Array:
    """Zeros in the place of what is only rounding, which no scale may blow up."""
    rounding = 1e-12 * np.max(np.abs(source))
    return result if np.max(np.abs(result)) > rounding else np.zeros_like(result)


# --- arguments ------------------------------------------------------------------------------------


def _reward(reward: ArrayLike) -> Array:
    array = np.asarray(reward, dtype=np.float64)
    if array.ndim != 3 or array.size == 0 or array.shape[0] != array.shape[2]:
        raise ValueError(f"reward: expected [states, actions, states], got shape {array.shape}")
    return _numbers("reward", array, array.shape)


def _distribution(name: str, values: ArrayLike, shape: tuple[int, ...]) -> Array:
    """Probabilities along the last axis."""
    array = _numbers(name, values, shape)
    if np.any(array < 0) or not np.allclose(array.sum(axis=-1), 1, rtol=0, atol=1e-8):
        raise ValueError(f"{name}: expected probabilities that are not negative and sum to 1")
    return array


def _numbers(name: str, values: ArrayLike, shape: tuple[int, ...]) -> Array:
    array = np.asarray(values, dtype=np.float64)
    if array.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {array.shape}")
    if not np.all(np.isfinite(array)):
        where = np.argwhere(~np.isfinite(array))[0]
        raise ValueError(f"{name}: got {array[tuple(where)]} at index {where.tolist()}")
    return array


def _discount(value: float) -> float:
    if not 0 <= value <= 1:
        raise ValueError(f"discount: expected a number from 0 to 1, got {value}")
    return float(value)
