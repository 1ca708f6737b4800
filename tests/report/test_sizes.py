"""Size against interpretability, on numbers whose trend is written down here."""

from pathlib import Path

import matplotlib.figure
import numpy as np
import pytest

from irl_exp.report import group_figures
from irl_exp.report.collect import axes, collect, order
from irl_exp.report.sizes import Sizes
from tests.report.conftest import write_small_run

STARC = "recovery/starc"
MODELS = {"a-large": 100_000, "b-small": 1_000, "c-middle": 10_000}
# What a seed adds to the slope of -0.1 for each tenfold.
TILTS = (-0.01, 0.0, 0.01, 0.02)


def grid(folder: Path) -> Path:
    """STARC falls by 0.1 (and the seed's tilt) for each tenfold with hinge, and not with svm."""
    for model, parameters in MODELS.items():
        for solver in ("hinge", "svm"):
            for seed, tilt in enumerate(TILTS):
                slope = (-0.1 if solver == "hinge" else 0.0) + (tilt - 0.005) * (-1) ** seed
                starc = 0.6 + slope * (np.log10(parameters) - 3) + 0.01 * seed
                config = {"model": {"name": model}, "solver": {"name": solver}}
                summary = {STARC: float(starc), "model/parameters": parameters}
                summary |= {"policy/aligned/optimality": 0.5 + 0.1 * np.log10(parameters)}
                name = f"{model}-{solver}-{seed}"
                write_small_run(folder / name, config=config, summary=summary, order=seed)
    return folder


def sizes(folder: Path) -> Sizes:
    found = Sizes.of(collect([folder]).done)
    assert found is not None
    return found


def test_models_stand_by_their_size(tmp_path: Path) -> None:
    runs = collect([grid(tmp_path)]).done
    [model] = [axis for axis in axes(runs) if axis.name == "model"]
    assert order(model, runs) == ["b-small", "c-middle", "a-large"]
    models = sizes(tmp_path).models
    assert list(models) == ["b-small", "c-middle", "a-large"]
    assert [parameters for parameters, _ in models.values()] == [1_000, 10_000, 100_000]


def test_a_slope_for_each_seed(tmp_path: Path) -> None:
    trends = sizes(grid(tmp_path)).trends[STARC]
    expected = [(tilt - 0.005) * (-1) ** seed for seed, tilt in enumerate(TILTS)]
    np.testing.assert_allclose(trends["solver=hinge"].slopes, [-0.1 + e for e in expected])
    np.testing.assert_allclose(trends["solver=svm"].slopes, expected, atol=1e-12)
    assert (trends["solver=hinge"].sign, trends["solver=svm"].sign) == (-1, 0)
    # Holm: of two questions the smaller p counts twice.
    from scipy.stats import ttest_1samp

    alone = ttest_1samp(trends["solver=hinge"].slopes, 0).pvalue
    assert trends["solver=hinge"].p == pytest.approx(2 * alone)


def test_the_answer_in_words(tmp_path: Path) -> None:
    answer = sizes(grid(tmp_path)).answer()
    assert "3 sizes, 1,000 to 100,000 parameters" in answer
    assert "STARC (solver=hinge) changes by -0.1" in answer and "n = 4 seeds" in answer
    assert answer.index("the nearer R̂ comes to R*") < answer.index("no trend that these seeds")
    assert "optimality by +0.100 ± 0" in answer


def test_one_size_or_one_seed(tmp_path: Path) -> None:
    one, summary = {"model": {"name": "m"}}, {STARC: 0.3, "model/parameters": 10}
    write_small_run(tmp_path / "a", config=one, summary=summary)
    write_small_run(tmp_path / "b", config=one, summary=summary, data=1)
    assert Sizes.of(collect([tmp_path]).done) is None
    larger = {"model": {"name": "n"}}
    write_small_run(tmp_path / "c", config=larger, summary={STARC: 0.2, "model/parameters": 100})
    found = sizes(tmp_path)
    assert found.trends[STARC]["all runs"].p is None
    assert "n = 1 seed: no trend that these seeds can show" in found.answer()


def test_the_grid_of_sizes_and_solvers(tmp_path: Path) -> None:
    figure = group_figures.sizes(sizes(grid(tmp_path)))
    assert isinstance(figure, matplotlib.figure.Figure)
    starc = figure.axes[0]
    cells = np.asarray(starc.images[0].get_array())
    assert cells.shape == (2, 3)
    np.testing.assert_allclose(cells[0], [0.615, 0.515, 0.415], atol=0.011)
    assert [label.get_text() for label in starc.get_yticklabels()] == ["solver=hinge", "solver=svm"]
    assert starc.get_xticklabels()[0].get_text() == "b-small\n1,000"
