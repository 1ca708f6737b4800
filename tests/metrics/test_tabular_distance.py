"""EPIC, DARD and STARC: axioms on random processes, values worked by hand, and other computations
of the same quantities: transitions drawn one by one, value iteration, orthogonal projection."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from irl_exp.metrics import reward_distance
from irl_exp.metrics.tabular_distance import (
    dard,
    dard_canonical,
    epic,
    epic_canonical,
    starc,
    val_canonical,
)

Array = NDArray[np.float64]
NAMES = ["epic", "dard", "starc"]


@dataclass
class World:
    """A process with random dynamics, and every distribution that a distance asks for."""

    transitions: Array
    discount: float
    states: Array
    actions: Array
    policy: Array
    coverage: Array
    weights: Array

    @classmethod
    def random(cls, rng: np.random.Generator, s: int = 4, a: int = 3) -> "World":
        return cls(
            transitions=rng.dirichlet(np.ones(s), size=(s, a)),
            discount=rng.uniform(0.1, 0.95),
            states=rng.dirichlet(np.ones(s)),
            actions=rng.dirichlet(np.ones(a)),
            policy=rng.dirichlet(np.ones(a), size=s),
            coverage=rng.dirichlet(np.ones(s * a * s)).reshape(s, a, s),
            weights=rng.uniform(0.1, 2, size=(s, a)),
        )

    def reward(self, rng: np.random.Generator) -> Array:
        return rng.normal(size=self.transitions.shape)

    def shaping(self, rng: np.random.Generator) -> Array:
        potential = 10 * rng.normal(size=len(self.states))
        shape = self.discount * potential - potential[:, None, None]
        return np.broadcast_to(shape, self.transitions.shape)

    def redistribution(self, rng: np.random.Generator) -> Array:
        """A reward whose mean over next states is 0 for every state and action."""
        noise = 5 * rng.normal(size=self.transitions.shape)
        return noise - np.sum(self.transitions * noise, axis=-1, keepdims=True)

    def distance(self, name: str, a: Any, b: Any) -> float:
        if name == "starc":
            rest = {"policy": self.policy, "weights": self.weights}
            return starc(a, b, transitions=self.transitions, discount=self.discount, **rest)
        common = {"actions": self.actions, "coverage": self.coverage}
        if name == "epic":
            return epic(a, b, discount=self.discount, states=self.states, **common)
        return dard(a, b, transitions=self.transitions, discount=self.discount, **common)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


# --- axioms ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_axioms(name: str, rng: np.random.Generator) -> None:
    for _ in range(50):
        world = World.random(rng)
        a, b, c = (world.reward(rng) for _ in range(3))
        assert world.distance(name, a, 4 * a + world.shaping(rng)) < 1e-10
        assert world.distance(name, a, world.shaping(rng) - 2 * a) == pytest.approx(1, abs=1e-9)
        assert world.distance(name, a, b) == world.distance(name, b, a)
        there = world.distance(name, a, b) + world.distance(name, b, c)
        assert 0 < world.distance(name, a, c) <= there + 1e-12


def test_starc_alone_ignores_where_next_states_carry_the_reward(rng: np.random.Generator) -> None:
    world = World.random(rng)
    reward = world.reward(rng)
    moved = reward + world.redistribution(rng)
    assert world.distance("starc", reward, moved) < 1e-10
    assert world.distance("epic", reward, moved) > 0.1
    assert world.distance("dard", reward, moved) > 0.1


def test_a_constant_changes_nothing(rng: np.random.Generator) -> None:
    world = World.random(rng)
    reward = world.reward(rng)
    for name in NAMES:  # a constant is potential shaping by a constant potential
        assert world.distance(name, reward, reward + 7) < 1e-10


def test_epic_alone_looks_at_impossible_transitions(rng: np.random.Generator) -> None:
    world = World.random(rng)
    # Action 0 stays, the others go on to the next state: everything else is impossible.
    stay, go = np.eye(4), np.roll(np.eye(4), 1, axis=1)
    world.transitions = np.stack([stay, go, go], axis=1)
    world.coverage = world.transitions / world.transitions.sum()
    reward = world.reward(rng)
    other = np.where(world.transitions > 0, reward, world.reward(rng))
    assert world.distance("epic", reward, other) > 0.05
    assert world.distance("starc", reward, other) < 1e-10


@pytest.mark.parametrize("name", NAMES)
def test_trivial_rewards(name: str, rng: np.random.Generator) -> None:
    world = World.random(rng)
    trivial = world.shaping(rng)
    assert world.distance(name, trivial, world.reward(rng)) == pytest.approx(0.5, abs=1e-9)
    assert world.distance(name, trivial, 0 * trivial) == 0


# --- by hand --------------------------------------------------------------------------------------

# Two states, two actions, each a choice of the next state: T(x | s, a) = [x == a]. gamma = 1/2. A
# step from state 0 to 1 earns 1, one from 1 to 0 earns 2, staying nothing.
HALF = np.array([0.5, 0.5])
CHOICE = np.broadcast_to(np.eye(2), (2, 2, 2)).copy()
STEPS = np.broadcast_to(np.array([[[0.0, 1.0]], [[2.0, 0.0]]]), (2, 2, 2)).copy()


def test_epic_canonical_by_hand() -> None:
    # E R(0, A, S') = 1/2, E R(1, A, S') = 1, E R(S, A, S') = 3/4.
    expected = [[0 + 1 / 4 - 1 / 2 - 3 / 8, 1 + 1 / 2 - 1 / 2 - 3 / 8]]
    expected += [[2 + 1 / 4 - 1 - 3 / 8, 0 + 1 / 2 - 1 - 3 / 8]]
    found = epic_canonical(STEPS, discount=0.5, states=HALF, actions=HALF)
    assert found == pytest.approx(np.repeat(np.array(expected)[:, None], 2, axis=1))


def test_dard_canonical_by_hand() -> None:
    # E R(0, A, S') = 1/2 and E R(1, A, S') = 1. One A moves s and s' to one place: S' = S'' = A, so
    # R(S', A, S'') = R(A, A, A) = 0.
    found = dard_canonical(STEPS, transitions=CHOICE, discount=0.5, actions=HALF)
    expected = np.array([[0 + 1 / 4 - 1 / 2, 1 + 1 / 2 - 1 / 2], [2 + 1 / 4 - 1, 0 + 1 / 2 - 1]])
    assert found == pytest.approx(np.repeat(expected[:, None], 2, axis=1))


def test_val_canonical_by_hand() -> None:
    # Uniform policy: V0 = 1/2 + (V0 + V1) / 4 and V1 = 1 + (V0 + V1) / 4: V0 + V1 = 3, V0 = 5/4,
    # V1 = 7/4. Advantages: stay in 0: 5/8 - 5/4, go to 1: 1 + 7/8 - 5/4; the others alike.
    found = val_canonical(
        STEPS, transitions=CHOICE, discount=0.5, policy=np.broadcast_to(HALF, (2, 2))
    )
    assert found == pytest.approx(np.array([[-5 / 8, 5 / 8], [7 / 8, -7 / 8]]))


def test_distances_by_hand() -> None:
    # Beside 1 for going from 0 to 1 alone: V0 = 1/2 + (V0 + V1) / 4, V1 = (V0 + V1) / 4, so
    # V0 + V1 = 1 and the advantages are (-3, 3, 1, -1) / 8; those above are (-5, 5, 7, -7) / 8.
    only = STEPS.copy()
    only[1] = 0
    found = starc(
        STEPS,
        only,
        transitions=CHOICE,
        discount=0.5,
        policy=np.broadcast_to(HALF, (2, 2)),
        weights=np.ones((2, 2)),
    )
    assert found == pytest.approx(np.sqrt((1 - 44 / np.sqrt(20 * 148)) / 2))
    # EPIC's forms are -5, 5, 7, -7 and, with E R(0, A, S') = 1/2 and 0 from 1, 1/4 overall,
    # 1/4 - 1/2 - 1/8 = -3/8, 1 - 1/2 - 1/8 = 3/8, 1/4 - 1/8 = 1/8 and -1/8: the same numbers.
    coverage = np.full((2, 2, 2), 1 / 8)
    same = epic(STEPS, only, discount=0.5, states=HALF, actions=HALF, coverage=coverage)
    assert same == pytest.approx(found)


# --- the same in another way ----------------------------------------------------------------------


def test_epic_and_dard_from_drawn_transitions(rng: np.random.Generator) -> None:
    world, n = World.random(rng), 100_000
    first = world.reward(rng)
    second = first + world.reward(rng)

    def draw(probabilities: Array) -> NDArray[np.int64]:
        """One of each row's places, by inverting its distribution function."""
        return np.sum(rng.random((n, 1)) > probabilities.cumsum(-1), axis=-1)

    anywhere, elsewhere = (draw(np.tile(world.states, (n, 1))) for _ in range(2))
    action = draw(np.tile(world.actions, (n, 1)))
    forms: dict[str, list[Array]] = {"epic": [], "dard": []}
    nexts = [draw(world.transitions[s, action]) for s in range(4)]
    others = [draw(world.transitions[s, action]) for s in range(4)]
    for reward in (first, second):
        by_epic, by_dard = np.empty_like(reward), np.empty_like(reward)
        for s, a, x in np.ndindex(reward.shape):
            by_epic[s, a, x] = reward[s, a, x] + np.mean(
                world.discount * reward[x, action, anywhere]
                - reward[s, action, anywhere]
                - world.discount * reward[elsewhere, action, anywhere]
            )
            by_dard[s, a, x] = reward[s, a, x] + np.mean(
                world.discount * reward[x, action, others[x]]
                - reward[s, action, nexts[s]]
                - world.discount * reward[nexts[s], action, others[x]]
            )
        forms["epic"].append(by_epic)
        forms["dard"].append(by_dard)
    rest: dict[str, Any] = {"discount": world.discount, "actions": world.actions}
    exact = {
        "epic": epic_canonical(first, states=world.states, **rest),
        "dard": dard_canonical(first, transitions=world.transitions, **rest),
    }
    covered = rng.choice(first.size, size=n, p=world.coverage.ravel())
    for name, (a, b) in forms.items():
        assert a == pytest.approx(exact[name], abs=0.03)
        rho = np.corrcoef(a.ravel()[covered], b.ravel()[covered])[0, 1]
        assert world.distance(name, first, second) == pytest.approx(
            np.sqrt((1 - rho) / 2), abs=0.01
        )


def test_val_by_value_iteration(rng: np.random.Generator) -> None:
    world = World.random(rng)
    reward = world.reward(rng)
    value = np.zeros(4)
    for _ in range(2000):
        ahead = np.sum(world.transitions * (reward + world.discount * value), axis=-1)
        value = np.sum(world.policy * ahead, axis=-1)
    found = val_canonical(
        reward, transitions=world.transitions, discount=world.discount, policy=world.policy
    )
    assert found == pytest.approx(ahead - value[:, None], abs=1e-10)
    assert np.sum(world.policy * found, axis=1) == pytest.approx(np.zeros(4), abs=1e-12)


def test_val_stays_in_the_class_of_its_reward(rng: np.random.Generator) -> None:
    """Another canonical form, by orthogonal projection: the shortest reward that differs by shaping
    and redistribution. VAL and the reward itself must have the same one."""
    world = World.random(rng)
    reward = world.reward(rng)
    levelled = np.sum(world.transitions * reward, axis=-1).ravel()
    # What shaping by each indicator potential adds to E R(s, a, S').
    here = np.repeat(np.eye(4)[:, None], 3, axis=1)
    shapings = (world.discount * world.transitions - here).reshape(12, 4)
    shortest = np.eye(12) - shapings @ np.linalg.pinv(shapings)
    val = val_canonical(
        reward, transitions=world.transitions, discount=world.discount, policy=world.policy
    ).ravel()
    assert shortest @ val == pytest.approx(shortest @ levelled)
    assert np.linalg.norm(shortest @ val) < np.linalg.norm(val)
    # A class has one VAL: of the shortest reward, put back on transitions, it is the same.
    again = np.repeat((shortest @ levelled).reshape(4, 3, 1), 4, axis=2)
    assert val_canonical(
        again, transitions=world.transitions, discount=world.discount, policy=world.policy
    ).ravel() == pytest.approx(val)


def test_starc_is_zero_only_where_policies_are_ordered_alike(rng: np.random.Generator) -> None:
    """Of two random rewards some policies' returns are ordered differently, of equivalent ones
    none: returns by linear solve, for all 81 deterministic policies."""
    world = World.random(rng)
    start = world.states

    def returns(reward: Array) -> Array:
        levelled = np.sum(world.transitions * reward, axis=-1)
        rows = np.arange(4)
        found = []
        for choice in np.ndindex(3, 3, 3, 3):
            moves = world.transitions[rows, list(choice)]
            gain = levelled[rows, list(choice)]
            found.append(start @ np.linalg.solve(np.eye(4) - world.discount * moves, gain))
        return np.array(found)

    reward, other = world.reward(rng), world.reward(rng)
    same = 3 * reward + world.shaping(rng) + world.redistribution(rng)
    assert np.array_equal(np.argsort(returns(reward)), np.argsort(returns(same)))
    assert world.distance("starc", reward, same) < 1e-9
    assert not np.array_equal(np.argsort(returns(reward)), np.argsort(returns(other)))
    assert world.distance("starc", reward, other) > 0.1


# --- the one step of a language model -------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("m", [2, 5])
def test_one_step_of_language_is_the_centred_form(
    name: str, m: int, rng: np.random.Generator
) -> None:
    """Prompts as states, completions as actions, and an end that nothing follows."""
    n = 6
    a = rng.normal(size=(n, m)) + 10 * rng.normal(size=(n, 1))
    b = a + rng.normal(size=(n, m)) + 10 * rng.normal(size=(n, 1))
    transitions = np.zeros((n + 1, m, n + 1))
    transitions[:, :, n] = 1
    uniform = np.full((n, m), 1 / (n * m))
    coverage = np.zeros_like(transitions)
    coverage[:n, :, n] = uniform
    world = World(
        transitions=transitions,
        discount=0.9,
        states=rng.dirichlet(np.ones(n + 1)),
        actions=np.full(m, 1 / m),
        policy=np.full((n + 1, m), 1 / m),
        coverage=coverage,
        weights=np.ones((n + 1, m)),
    )

    def embedded(scores: Array) -> Array:
        reward = np.zeros_like(transitions)
        reward[:n] = scores[:, :, None]  # the same on steps that do not happen
        return reward

    expected = reward_distance.starc(a, b)
    assert 0.1 < expected < 0.6
    assert world.distance(name, embedded(a), embedded(b)) == pytest.approx(expected, abs=1e-12)


# --- bad arguments --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("epic", {"states": HALF / 2}, "states: expected probabilities"),
        ("epic", {"actions": np.array([1.0])}, r"actions: expected shape \(2,\), got \(1,\)"),
        ("epic", {"coverage": np.ones((2, 2, 2))}, "coverage: expected probabilities"),
        ("epic", {"discount": 1.1}, "discount: expected a number from 0 to 1, got 1.1"),
        ("dard", {"transitions": CHOICE * [2, -1]}, "transitions: expected probabilities"),
        ("dard", {"transitions": CHOICE[:1]}, "transitions: expected shape"),
        ("starc", {"discount": 1}, "discount: expected below 1"),
        ("starc", {"policy": np.full((2, 2), np.nan)}, r"policy: got nan at index \[0, 0\]"),
        ("starc", {"weights": np.zeros((2, 2))}, "weights: expected positive"),
    ],
)
def test_bad_arguments_are_named(name: str, change: dict[str, Any], message: str) -> None:
    world = World(
        transitions=CHOICE,
        discount=0.5,
        states=HALF,
        actions=HALF,
        policy=np.broadcast_to(HALF, (2, 2)),
        coverage=np.full((2, 2, 2), 1 / 8),
        weights=np.ones((2, 2)),
    )
    vars(world).update(change)
    with pytest.raises(ValueError, match=message):
        world.distance(name, STEPS, 1 + CHOICE)


def test_bad_rewards_are_named() -> None:
    rest: dict[str, Any] = {"discount": 0.5, "states": HALF, "actions": HALF}
    with pytest.raises(ValueError, match=r"reward: expected \[states, actions, states\]"):
        epic_canonical(np.zeros((2, 2, 3)), **rest)
    with pytest.raises(ValueError, match=r"reward: got inf at index \[1, 0, 0\]"):
        epic_canonical(np.where(STEPS == 2, np.inf, STEPS), **rest)
