"""Objectives at hand-picked points, and the loss over all pairs of a pool."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import pytest
import torch
from torch import Tensor, nn

from irl_exp.modules.max_margin import (
    PAIRWISE,
    POOLED,
    MaxMargin,
    aligned_over_reference,
    asymmetric,
    by_odds,
    collate,
    hinge,
    logistic,
    mean_over_pairs,
    squared_hinge,
)
from irl_exp.validation import OBJECTIVES, PAIRWISE_OBJECTIVES


@pytest.mark.parametrize(
    ("objective", "x", "value", "gradient"),
    [
        (asymmetric, 3.0, -3.0, -1.0),
        (asymmetric, 0.0, 0.0, -2.0),
        (asymmetric, -3.0, 6.0, -2.0),
        (hinge, 2.0, 0.0, 0.0),
        (hinge, 1.0, 0.0, 0.0),
        (hinge, 0.25, 0.75, -1.0),
        (hinge, 0.0, 1.0, -1.0),
        (hinge, -3.0, 4.0, -1.0),
        (squared_hinge, 2.0, 0.0, 0.0),
        (squared_hinge, 1.0, 0.0, 0.0),
        (squared_hinge, 0.0, 1.0, -2.0),
        (squared_hinge, -3.0, 16.0, -8.0),
        (logistic, 0.0, math.log(2), -0.5),
        (logistic, math.log(3), math.log(4 / 3), -0.25),
        (logistic, -math.log(3), math.log(4), -0.75),
        (logistic, -1000.0, 1000.0, -1.0),
    ],
)
def test_objectives_and_their_gradients(
    objective: Callable[[Tensor], Tensor], x: float, value: float, gradient: float
) -> None:
    point = torch.tensor(x, requires_grad=True)
    loss = objective(point)
    loss.backward()
    assert loss.item() == pytest.approx(value, abs=1e-6)
    assert point.grad is not None
    assert point.grad.item() == pytest.approx(gradient, abs=1e-6)


def test_the_configuration_names_the_objectives_there_are() -> None:
    assert list(OBJECTIVES) == [*PAIRWISE, *POOLED]
    assert list(PAIRWISE_OBJECTIVES) == list(PAIRWISE)


# --- pairs ------------------------------------------------------------------------------------


@dataclass
class Table:
    """A reward whose token rows are indices into a table of scores."""

    scores: nn.Parameter
    network: nn.Module

    def forward(self, rows: Sequence[Sequence[int]]) -> Tensor:
        return self.scores[torch.tensor(rows).flatten()]


# Two prompts, k = 2: the aligned policy's scores first, then the reference's.
SCORES = [[2.0, 0.0, 1.0, -1.0], [0.5, 0.5, 0.5, 3.0]]
# Their differences, aligned less reference, of all k^2 pairs.
X = [1.0, 3.0, -1.0, 1.0, 0.0, -2.5, 0.0, -2.5]
# The sums of any two scores of a prompt, the aligned policy's two first.
SETS = [[sum(chosen) for chosen in combinations(scores, 2)] for scores in SCORES]
ROWS: list[Sequence[int]] = [[i] for i in range(8)]


def module(objective: str) -> MaxMargin:
    table = Table(nn.Parameter(torch.tensor(SCORES).flatten()), nn.Linear(1, 1))
    return MaxMargin(table, objective, 1e-3, 0.0, 0.1)  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore:You are trying to `self.log")
@pytest.mark.parametrize(
    ("objective", "loss"),
    [
        ("asymmetric", (-1 - 3 + 2 - 1 + 0 + 5 + 0 + 5) / 8),
        ("hinge", (0 + 0 + 2 + 0 + 1 + 3.5 + 1 + 3.5) / 8),
        ("squared_hinge", (0 + 0 + 4 + 0 + 1 + 12.25 + 1 + 12.25) / 8),
        ("logistic", sum(math.log1p(math.exp(-x)) for x in X) / 8),
        # Per completion: minus the log share of the aligned set among all sets of two.
        ("max_entropy", sum(math.log(sum(map(math.exp, sets))) - sets[0] for sets in SETS) / 4),
    ],
)
def test_the_loss_is_the_mean_over_all_pairs_of_a_prompt(objective: str, loss: float) -> None:
    found = module(objective).training_step((ROWS, aligned_over_reference(2, 2)), 0)
    assert found is not None
    assert found.item() == pytest.approx(loss)


@pytest.mark.filterwarnings("ignore:You are trying to `self.log")
def test_maximum_entropy_for_one_completion_is_logistic() -> None:
    """The loss and its gradient: Bradley and Terry's model is the case k = 1."""
    found = {}
    for objective in ("logistic", "max_entropy"):
        margin = module(objective)
        loss = margin.training_step((ROWS, aligned_over_reference(4, 1)), 0)
        assert loss is not None
        loss.backward()
        found[objective] = (loss.detach(), margin.reward.scores.grad)  # type: ignore[attr-defined]
    torch.testing.assert_close(found["max_entropy"], found["logistic"])


@pytest.mark.filterwarnings("ignore:You are trying to `self.log")
def test_the_gradient_reaches_each_score_once_a_pair() -> None:
    """Each pair with x < 1 gives 1/8: -1 to the aligned completion, +1 to the reference's."""
    margin = module("hinge")
    loss = margin.training_step((ROWS, aligned_over_reference(2, 2)), 0)
    assert loss is not None
    loss.backward()
    gradient = margin.reward.scores.grad * 8  # type: ignore[attr-defined]
    assert gradient.tolist() == [0, -1, 1, 0, -2, -2, 2, 2]


@pytest.mark.filterwarnings("ignore:You are trying to `self.log")
def test_pairs_that_no_order_asks_for_have_no_part() -> None:
    order = torch.zeros(2, 4, 4)
    order[1, 3, 0] = 1  # 3.0 over 0.5, of the second prompt
    margin = module("hinge")
    loss = margin.training_step((ROWS, order), 0)
    assert loss is not None and loss.item() == 0
    assert margin.training_step((ROWS, torch.zeros(2, 4, 4)), 0) is None


def test_the_accuracy_is_the_share_of_pairs_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three of X are above zero; a tie is not in order."""
    logged: dict[str, Tensor] = {}
    margin = module("hinge")
    monkeypatch.setattr(margin, "log_dict", lambda facts, **_: logged.update(facts))
    batch = (ROWS, aligned_over_reference(2, 2))
    margin.training_step(batch, 0)
    margin.validation_step(batch, 0)
    assert float(logged["pair_accuracy"]) == 3 / 8
    assert float(logged["validation_pair_accuracy"]) == 3 / 8
    assert logged["validation_loss"].item() == logged["loss"].item() == 11 / 8


def test_without_a_pair_there_is_nothing_to_validate(monkeypatch: pytest.MonkeyPatch) -> None:
    logged: dict[str, float] = {}
    margin = module("hinge")
    monkeypatch.setattr(margin, "log_dict", lambda facts, **_: logged.update(facts))
    margin.validation_step((ROWS, torch.zeros(2, 4, 4)), 0)
    assert logged == {"validation_loss": 0, "validation_pair_accuracy": 0}


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_early_stopping_goes_by_the_loss_where_that_has_an_end(objective: str) -> None:
    logged = {"validation_loss": torch.tensor(-7.0), "validation_pair_accuracy": torch.tensor(0.75)}
    expected = 0.25 if objective == "asymmetric" else -7.0
    assert module(objective).criterion(logged).item() == expected


def test_aligned_over_reference_prefers_every_aligned_completion() -> None:
    order = aligned_over_reference(3, 2)
    expected = [[0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert order.tolist() == [expected] * 3


def test_by_odds_weighs_a_pair_as_bradley_and_terry_prefer_it() -> None:
    found = by_odds(torch.tensor([[math.log(3), 0.0, 0.0]]))  # odds of 3 to 1
    expected = torch.tensor([[[0, 0.75, 0.75], [0.25, 0, 0.5], [0.25, 0.5, 0]]])
    torch.testing.assert_close(found, expected)


def test_no_reward_beats_the_one_whose_odds_are_told() -> None:
    """Their logistic loss is least where R is the scores, whatever is added to all of a prompt."""
    scores = torch.randn(5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    order = by_odds(scores)
    found = (scores + torch.arange(5).unsqueeze(1)).requires_grad_()
    mean_over_pairs(logistic(found.unsqueeze(2) - found.unsqueeze(1)), order).backward()
    torch.testing.assert_close(found.grad, torch.zeros_like(found))


def test_collate_keeps_pools_in_order() -> None:
    one, two = aligned_over_reference(2, 1).unbind()
    rows, order = collate([([[1], [2, 3]], one), ([[4], [5]], two)])
    assert rows == [[1], [2, 3], [4], [5]]
    assert order.tolist() == [[[0, 1], [0, 0]]] * 2
