"""Curves along what a sweep varied, on numbers that are written down here."""

from pathlib import Path

import pytest

from irl_exp.report.collect import collect
from irl_exp.report.curves import Curves, curves
from tests.report.conftest import write_small_run

AUC, STARC, KL = "recovery/auc", "recovery/starc", "policy/aligned/kl"


def sweep(folder: Path, rows: list[tuple[str, int, float, int, float]]) -> list[Curves]:
    for solver, prompts, beta, seed, auc in rows:
        config = {
            "solver": {"name": solver},
            "demonstrations": {"prompts": prompts},
            "rlhf": {"kl_coef": beta},
        }
        summary = {AUC: auc, STARC: 1 - auc, KL: seed + 1 / beta, "recovery/starc_floor": 0.1}
        name = f"{solver}-{prompts}-{beta}-{seed}"
        write_small_run(folder / name, config=config, summary=summary, order=seed)
    return curves(collect([folder]).done)


def test_a_curve_for_each_number_that_was_swept(tmp_path: Path) -> None:
    """Prompts, and no seed; a line for each solver; a mean over seeds at each value."""
    [found] = sweep(
        tmp_path,
        [
            ("hinge", 100, 0.5, 0, 0.7),
            ("hinge", 100, 0.5, 1, 0.8),
            ("hinge", 20, 0.5, 0, 0.6),
            ("svm", 20, 0.5, 0, 0.65),
            ("svm", 100, 0.5, 0, 0.75),
        ],
    )
    assert (found.name, found.logarithmic) == ("demonstrations.prompts", False)
    assert list(found.lines) == [STARC, AUC]
    assert list(found.lines[AUC]) == ["solver=hinge", "solver=svm"]
    low, high = found.lines[AUC]["solver=hinge"]
    assert (low.at.mean, low.mean.mean, low.mean.n) == (20, 0.6, 1)
    assert (high.at.mean, high.mean.mean, high.mean.n) == (100, pytest.approx(0.75), 2)
    assert high.runs == [(100, 0.7), (100, 0.8)]
    assert high.mean.high - high.mean.mean == pytest.approx(12.7062 * 0.05, rel=1e-4)
    assert found.floor == pytest.approx(0.1)


def test_values_over_a_decade_stand_on_a_logarithm(tmp_path: Path) -> None:
    [found] = sweep(tmp_path, [("hinge", 10, 0.5, 0, 0.6), ("hinge", 101, 0.5, 0, 0.7)])
    assert found.logarithmic


def test_beta_also_against_the_kl_that_came_of_it(tmp_path: Path) -> None:
    rows = [("hinge", 10, beta, seed, 0.6 + beta) for beta in (0.1, 0.2) for seed in (0, 1)]
    beta, measured = sweep(tmp_path, rows)
    assert (beta.name, measured.name) == ("rlhf.kl_coef", "policy-aligned-kl")
    assert "as measured" in measured.x
    first, second = measured.lines[AUC]["all runs"]
    assert first.runs == [(10.0, 0.7), (11.0, 0.7)]
    assert (first.at.mean, second.at.mean) == (10.5, 5.5)


def test_one_value_makes_no_line(tmp_path: Path) -> None:
    """Two axes that were varied one at a time: each line holds what else is equal."""
    rows = [("hinge", 10, 0.5, 0, 0.6), ("hinge", 20, 0.5, 0, 0.7), ("hinge", 10, 0.7, 0, 0.8)]
    prompts, beta, _ = sweep(tmp_path, rows)
    assert list(prompts.lines[AUC]) == ["rlhf.kl_coef=0.5"]
    assert list(beta.lines[AUC]) == ["demonstrations.prompts=10"]
