"""A correction finds what the base lacks, and leaves alone what is right."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from irl_exp.config import FailureAwareSolver, SolverConfig
from irl_exp.modules.max_margin import PAIRWISE
from irl_exp.solvers.choice import most_likely
from irl_exp.solvers.convex import maximum_margin
from irl_exp.solvers.failure_aware import (
    Round,
    correct,
    correction,
    in_scale,
    next_step,
    uncorrelated,
)
from irl_exp.solvers.linear import differences
from tests.solvers.planted import Planted, plant

pytestmark = pytest.mark.usefixtures("one_thread")
TRAIN, ALL = 1000, 1200


def rounds(problem: Planted, w: Tensor, objective: str) -> list[Round]:
    config = FailureAwareSolver(
        "failure_aware", SolverConfig("base"), objective, 1.0, 4, [0.1, 1, 10, 100]
    )
    return list(correct(problem.phi[:TRAIN], problem.phi[TRAIN:], w, config))


def fit(phi: Tensor, objective: str) -> Tensor:
    if objective == "logistic":
        return torch.from_numpy(most_likely(phi, prior_scale=1.0))
    return maximum_margin(phi, penalty=30.0)


@pytest.mark.parametrize("objective", ["logistic", "squared_hinge"])
def test_a_direction_that_the_base_does_not_see_is_recovered(objective: str) -> None:
    """Its features lack the four that R* weighs most; the correction reads them all."""
    for seed in range(3):
        problem = plant(ALL, seed=seed)
        blind = problem.phi[:TRAIN].clone()
        blind[..., problem.w.abs().argsort()[-4:]] = 0
        base = fit(blind, objective)
        found = rounds(problem, base, objective)
        assert problem.cosine(base) < 0.65
        assert problem.cosine(found[-1].w) > 0.95
        failures = [each.failures for each in found]
        assert failures == sorted(failures)  # the curriculum opens


@pytest.mark.parametrize("objective", ["logistic", "squared_hinge"])
def test_a_base_of_a_wrong_objective_is_put_right(objective: str) -> None:
    """The mean difference of features, which is R* only where features are uncorrelated."""
    problem = plant(ALL)
    wrong = differences(problem.phi[:TRAIN]).mean((0, 1))
    found = rounds(problem, wrong, objective)
    assert problem.cosine(wrong) < 0.85
    assert problem.cosine(found[-1].w) > 0.95


@pytest.mark.parametrize("objective", ["logistic", "squared_hinge"])
def test_what_is_right_is_left_alone(objective: str) -> None:
    for seed in range(5):
        problem = plant(ALL, seed=seed)
        base = fit(problem.phi[:TRAIN], objective)
        found = rounds(problem, base, objective)
        assert problem.cosine(found[-1].w) > problem.cosine(base) - 0.02
        losses = [each.held_out_loss for each in found]
        scaled = in_scale(base, differences(problem.phi[:TRAIN]).flatten(0, 1), PAIRWISE[objective])
        before = float(PAIRWISE[objective](differences(problem.phi[TRAIN:]) @ scaled).mean())
        assert losses == sorted(losses, reverse=True)
        assert losses[0] <= before + 1e-12


def test_failures_alone_would_turn_the_reward_around() -> None:
    """Which is why corrections are uncorrelated with it. Here the base is R* itself."""
    problem = plant(TRAIN)
    w = problem.w / problem.beta
    deltas = differences(problem.phi).flatten(0, 1)
    failures = deltas[deltas @ w < -0.5]
    x, logistic = failures @ w, PAIRWISE["logistic"]
    anything = correction(x, failures, logistic, penalty=10.0)
    assert problem.correlation(w + anything) < -0.95
    free = uncorrelated(w, torch.cov(deltas.T))
    kept = free @ correction(x, failures @ free, logistic, penalty=10.0)
    assert problem.correlation(w + kept) > 0.9


def test_the_scale_of_the_base_has_no_part() -> None:
    problem = plant(ALL)
    base = fit(problem.phi[:TRAIN], "squared_hinge")
    small, large = (rounds(problem, size * base, "squared_hinge")[-1] for size in (0.1, 10.0))
    torch.testing.assert_close(small.w, large.w, rtol=1e-3, atol=1e-4)


def test_a_scale_is_the_best_one() -> None:
    """Differences 1 and -1/3: (1 - a)^2 + (1 + a/3)^2 is least at a = 3/5."""
    deltas = torch.tensor([[1.0], [-1 / 3]]).double()
    found = in_scale(torch.ones(1).double(), deltas, PAIRWISE["squared_hinge"])
    assert float(found) == pytest.approx(0.6, abs=1e-6)


def test_corrections_do_not_go_with_the_reward() -> None:
    problem = plant(TRAIN)
    deltas = differences(problem.phi).flatten(0, 1)
    free = uncorrelated(problem.w, torch.cov(deltas.T))
    assert free.shape == (32, 31)
    torch.testing.assert_close(free.T @ free, torch.eye(31, dtype=torch.float64))
    together = torch.cov(torch.cat([(deltas @ problem.w).unsqueeze(1), deltas @ free], 1).T)
    assert together[0, 1:].abs().max() < 1e-10


@pytest.mark.parametrize("objective", ["logistic", "squared_hinge"])
def test_a_correction_is_the_minimum(objective: str) -> None:
    """Of what the docstring says; nothing near it is lower."""
    rng = np.random.default_rng(0)
    x, rows = torch.from_numpy(rng.normal(size=50)), torch.from_numpy(rng.normal(size=(50, 3)))

    def value(c: Tensor) -> float:
        return float(c @ c / 2 + 7.0 * PAIRWISE[objective](x + rows @ c).mean())

    found = correction(x, rows, PAIRWISE[objective], penalty=7.0)
    steps = torch.from_numpy(rng.normal(size=(200, 3)))
    for size in (1.0, 1e-2, 1e-4):
        assert all(value(found + size * step) > value(found) for step in steps)


def test_a_reward_without_failures_stays() -> None:
    phi = plant(20).phi * 1e-3
    phi[:, :4] += 1  # every x is near 32
    w = torch.ones(32, dtype=torch.float64)
    config = FailureAwareSolver("f", SolverConfig("b"), "logistic", 1.0, 2, [1.0])
    found = list(correct(phi, phi, w, config))
    assert [(each.failures, each.penalty, each.loss) for each in found] == [(0, 0.0, 0.0)] * 2
    assert all(torch.equal(each.w, w) for each in found)


def test_curves_go_on_behind_those_of_the_base(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert next_step(path) == 0
    path.write_text("".join(json.dumps({"global_step": step}) + "\n" for step in (9, 19)))
    assert next_step(path) == 20
