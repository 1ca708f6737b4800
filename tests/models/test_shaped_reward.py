"""The shaping of the paper's released code, at points that are known."""

import pytest
import torch

from irl_exp.models.reward_kinds import LengthReward
from irl_exp.models.shaped_reward import ShapedReward, shaped


def test_the_middle_is_best_and_the_best_is_punished() -> None:
    raw = torch.tensor([-4.0, -2.0, -0.5, 0.0, 0.5, 2.0, 4.0])
    expected = torch.tensor([-1.5, -0.75, -0.1875, 0.0, -0.0625, -0.25, -0.5])
    torch.testing.assert_close(shaped(raw), expected)
    torch.testing.assert_close(shaped(3 * raw + 7), expected)  # in whatever unit


@pytest.mark.parametrize("raw", [[0.3], [2.0, 2.0, 2.0], [-1.0, -1.0]])
def test_one_alone_and_equals_get_the_least(raw: list[float]) -> None:
    assert shaped(torch.tensor(raw)).tolist() == [-1.5] * len(raw)


def test_a_text_is_worth_what_its_three_neighbours_make_of_it() -> None:
    reward = ShapedReward(LengthReward(1))
    texts = ["a", "a b", "a b c", "a", "a b c", "a b", "a b c d e", "a", "a b c"]
    found = reward.score([""] * len(texts), texts).tolist()
    # a b c: the longest of the first four, the middle of the next, and alone in the end.
    assert (found[2], found[4], found[8]) == (-0.5, 0.0, -1.5)
    assert found[:4] == [-1.5, 0.0, -0.5, -1.5]
