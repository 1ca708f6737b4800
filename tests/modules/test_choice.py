"""The likelihood of who wrote which completion, against its definition."""

from itertools import combinations

import pytest
import torch
from torch import Tensor

from irl_exp.modules.choice import log_choice


def by_enumeration(scores: Tensor) -> Tensor:
    """Over all sets of k of the 2k."""
    k = scores.shape[1] // 2
    sets = [scores[:, list(chosen)].sum(1) for chosen in combinations(range(2 * k), k)]
    return scores[:, :k].sum(1) - torch.stack(sets, 1).logsumexp(1)


@pytest.mark.parametrize("k", [1, 2, 4])
@pytest.mark.parametrize("size", [1.0, 40.0])
def test_it_is_the_share_of_one_set_among_all(k: int, size: float) -> None:
    """Values and slopes, also where scores are far apart."""
    generator = torch.Generator().manual_seed(k)
    scores = size * torch.randn(5, 2 * k, dtype=torch.float64, generator=generator)
    found, expected = scores.clone().requires_grad_(), scores.clone().requires_grad_()
    log_choice(found).sum().backward()
    by_enumeration(expected).sum().backward()
    torch.testing.assert_close(log_choice(scores), by_enumeration(scores))
    torch.testing.assert_close(found.grad, expected.grad)


def test_one_of_two_is_bradley_and_terry() -> None:
    scores = torch.tensor([[1.0, 0.5], [-2.0, 3.0]])
    expected = torch.nn.functional.logsigmoid(scores[:, 0] - scores[:, 1])
    torch.testing.assert_close(log_choice(scores), expected)


def test_a_constant_of_the_prompt_has_no_part() -> None:
    scores = torch.randn(3, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(log_choice(scores + 7.0), log_choice(scores))


def test_the_shares_of_all_sets_are_one() -> None:
    scores = torch.randn(1, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    shares = []
    for chosen in combinations(range(6), 3):
        others = [i for i in range(6) if i not in chosen]
        shares.append(log_choice(scores[:, [*chosen, *others]]).exp())
    torch.testing.assert_close(torch.stack(shares).sum(), torch.tensor(1.0, dtype=torch.float64))
