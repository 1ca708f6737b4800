"""Demonstrations that say nothing, or next to it: each solver answers with a reward that is finite
on every text."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from irl_exp.data.pairs import Demonstrations
from irl_exp.solvers import SOLVERS
from irl_exp.solvers.problem import Problem
from tests.solvers.test_solvers import CONFIGS, K, demonstrations, problem, truth  # noqa: F401

TEXTS = ["", " you", " you are a goose, and the map is late", " 😀", "\u202e\x00 ü"]
# The two sides' completions of the i-th prompt.
SITUATIONS: dict[str, Callable[[int], tuple[list[str], list[str]]]] = {
    # No feature has any variance, and no pair is preferred.
    "all equal": lambda i: ([" good map"] * K, [" good map"] * K),
    # Every feature is the same within a side: two points, infinitely well separated.
    "two texts": lambda i: ([" good map"] * K, [" you fool"] * K),
    "single tokens": lambda i: ([" a", " b", " a", " c"], [" d", " b", " e", " d"]),
    "empty completions": lambda i: ([""] * K, [" you", "", "", ""]),
    "nothing at all": lambda i: ([""] * K, [""] * K),
    "the same on both sides": lambda i: ([f" map {i}", *TEXTS[1:4]], [f" map {i}", *TEXTS[1:4]]),
}


@pytest.mark.parametrize("situation", SITUATIONS)
@pytest.mark.parametrize("name", CONFIGS)
def test_a_finite_reward(
    name: str,
    situation: str,
    problem: Problem,  # noqa: F811
    tmp_path: Path,
    one_thread: None,
) -> None:
    splits = ["train"] * 24 + ["validation"] * 8 + ["test"] * 8
    pools = [SITUATIONS[situation](i) for i in range(len(splits))]
    given = Demonstrations(
        prompts=[f"On the harbour article {i}" for i in range(len(splits))],
        aligned=[aligned for aligned, _ in pools],
        reference=[reference for _, reference in pools],
        splits=splits,
    )
    asked = replace(problem, config=CONFIGS[name], demonstrations=given, folder=tmp_path)
    reward = SOLVERS[name](asked)
    scores = reward.score(["On the harbour article"] * len(TEXTS), TEXTS)
    assert scores.isfinite().all()
    assert scores.shape == (len(TEXTS),)
