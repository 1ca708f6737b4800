"""The matrix and its split on panels of two pairs, where a distance is an angle in the plane.

Of two completions a prompt the STARC distance is sqrt((1 - cos) / 2), cos between the two vectors
of differences. R* differs by (1, 0).
"""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from irl_exp.report.collect import collect
from irl_exp.report.distances import Spread, alike, averaged, matrices
from tests.report.conftest import write_small_run

# Differences (1, 0), (0, 1) and (1, 1), with offsets and scales that must not count.
EAST, NORTH, DIAGONAL = (7.0, 6.0, 2.0, 2.0), (1.0, 1.0, -3.0, -7.0), (10.0, 8.0, 0.0, -2.0)
RIGHT_ANGLE, HALF = math.sqrt(1 / 2), math.sqrt((1 - math.sqrt(1 / 2)) / 2)


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    write_small_run(tmp_path / "a", recovered=EAST)
    write_small_run(tmp_path / "b", recovered=NORTH, initialization=1)
    write_small_run(tmp_path / "c", recovered=DIAGONAL, order=1)
    return tmp_path


def test_the_matrix(sweep: Path) -> None:
    [matrix], alone = matrices(collect([sweep]).done)
    assert alone == []
    assert (matrix.digest, matrix.one_truth) == ("d1", True)
    assert [run.folder.name for run in matrix.runs] == ["a", "c", "b"]
    assert matrix.labels == ["base", "order 1", "initialization 1"]
    expected = [[0, HALF, RIGHT_ANGLE], [HALF, 0, HALF], [RIGHT_ANGLE, HALF, 0]]
    np.testing.assert_allclose(matrix.between, expected, atol=1e-12)
    np.testing.assert_allclose(matrix.to_truth, [0, HALF, RIGHT_ANGLE], atol=1e-12)
    np.testing.assert_allclose(matrix.floor, [HALF] * 3)  # the twin differs by (2, 2)


def test_the_split_by_what_varied(sweep: Path) -> None:
    write_small_run(sweep / "d", recovered=EAST, alignment=1)
    write_small_run(sweep / "e", recovered=NORTH, demonstrations=2)
    [matrix], _ = matrices(collect([sweep]).done)
    found: dict[str, list[float]] = {}
    for pair in matrix.pairs:
        found.setdefault(pair.source, []).append(pair.distance)
    single = {
        "order of data": [HALF],
        "initialization": [RIGHT_ANGLE],
        "recovery (initialization, order)": [HALF],
        "expert (alignment)": [0],
        "demonstrations": [RIGHT_ANGLE],
    }
    for source, distances in single.items():
        assert found.pop(source) == pytest.approx(distances, abs=1e-12), source
    assert {source: len(distances) for source, distances in found.items()} == {
        "several of these": 5,
    }


def test_errors_that_are_not_shared(tmp_path: Path) -> None:
    """In a space of many dimensions, two rewards whose errors were drawn apart from each other."""
    rng = np.random.default_rng(0)
    truth, *errors = rng.normal(size=(3, 20_000, 2))
    for i, error in enumerate(errors):
        folder = write_small_run(tmp_path / f"{i}", order=i)
        panel = pd.DataFrame(
            {
                "kind": "reference",
                "prompt": np.repeat(np.arange(len(truth)), 2),
                "truth": truth.ravel(),
                "recovered": (truth + (1 + i) * error).ravel(),
            }
        )
        panel.to_parquet(folder / "panel.parquet")
    [matrix], _ = matrices(collect([tmp_path]).done)
    [pair] = matrix.pairs
    rho = 1 / math.sqrt(2) / math.sqrt(5)  # of R* with either, multiplied
    assert pair.unshared == pytest.approx(math.sqrt((1 - rho) / 2), abs=5e-3)
    assert pair.distance == pytest.approx(pair.unshared, abs=5e-3)


def test_only_runs_of_one_configuration_make_pairs(sweep: Path) -> None:
    """Another solver's rewards are in the matrix, and its seeds are no source of theirs."""
    other = {"config": {"solver": {"name": "svm"}}}
    write_small_run(sweep / "d", recovered=NORTH, **other)
    write_small_run(sweep / "e", recovered=EAST, **other, order=1)
    [matrix], _ = matrices(collect([sweep]).done)
    assert matrix.labels == [
        *("base", "order 1", "initialization 1", "solver svm", "solver svm, order 1"),
    ]
    pairs = [(p.configuration, p.source, round(p.distance, 6)) for p in matrix.pairs]
    assert pairs[-1] == ("solver=svm", "order of data", round(RIGHT_ANGLE, 6))
    assert [configuration for configuration, *_ in pairs[:-1]] == ["solver=hinge"] * 3


def test_panels_are_not_mixed(sweep: Path) -> None:
    write_small_run(sweep / "d", recovered=EAST, digest="d2", policy=1)
    write_small_run(sweep / "e", recovered=EAST, digest="d2", policy=1, order=1)
    write_small_run(sweep / "f", recovered=EAST, digest="d3", policy=2)
    write_small_run(sweep / "g", policy=3, digest="d2")  # ended before it had a panel
    found, alone = matrices(collect([sweep]).done)
    assert [(m.digest, len(m.runs)) for m in found] == [("d1", 3), ("d2", 2)]
    assert [run.folder.name for run in alone] == ["f"]


def test_panels_with_the_same_differences_go_together(tmp_path: Path) -> None:
    """Two seeds, each with its own panel and two solvers; and a panel whose runs are seeds."""
    svm = {"config": {"solver": {"name": "svm"}}}
    for seed, other in enumerate([NORTH, DIAGONAL]):
        digest = f"d{seed}"
        write_small_run(tmp_path / f"a{seed}", recovered=EAST, digest=digest, policy=seed)
        write_small_run(tmp_path / f"b{seed}", recovered=other, digest=digest, policy=seed, **svm)
        write_small_run(tmp_path / f"c{seed}", recovered=other, digest="d2", policy=2, order=seed)
    found, _ = matrices(collect([tmp_path]).done)
    together, apart = alike(found)
    assert [matrix.digest for matrix in together] == ["d0", "d1"]
    assert [matrix.digest for matrix in apart] == ["d2"]
    mean = averaged(together)
    assert mean.labels == ["solver hinge", "solver svm"]
    assert mean.between[0, 1] == pytest.approx((RIGHT_ANGLE + HALF) / 2)
    assert mean.to_truth == pytest.approx((together[0].to_truth + together[1].to_truth) / 2)
    assert mean.one_truth  # within each panel


def test_a_spread_by_hand() -> None:
    assert Spread.of([0.1, 0.3]) == Spread(pytest.approx(0.2), pytest.approx(math.sqrt(0.02)), 2)
    assert math.isnan(Spread.of([0.1]).sd)
