"""What is said and drawn of recoveries epoch by epoch."""

import json
from pathlib import Path

import numpy as np
import pytest

from irl_exp.report import sweep_figures, sweep_page
from irl_exp.report.collect import collect
from irl_exp.report.epochs import Epochs
from irl_exp.report.run import Run
from tests.report.conftest import write_small_run

# Accuracy at zero and AUC at each epoch; 0.4 of the comments are toxic.
COURSES = {0: ([0.4, 0.604, 0.8], [0.5, 0.9, 0.9]), 1: ([0.6, 0.5], [0.45, 0.7])}


@pytest.fixture
def runs(tmp_path: Path) -> list[Run]:
    """Two that were traced, one of which stopped early, and one that was not."""
    for seed, courses in COURSES.items():
        folder = tmp_path / str(seed)
        write_small_run(folder, summary={"comments/test_toxic_share": 0.4}, order=seed)
        curves = [
            {"step": "evaluate", "global_step": epoch, "accuracy_at_zero": a, "auc": b, "starc": 1}
            for epoch, (a, b) in enumerate(zip(*courses, strict=True))
        ]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(c) + "\n" for c in curves))
    write_small_run(tmp_path / "2", order=2)
    return [Run.read(tmp_path / str(place)) for place in (1, 0, 2)]


def test_runs_by_epochs(runs: list[Run]) -> None:
    found = Epochs.of(runs)
    assert found is not None
    assert found.labels == ["order=0", "order=1"]
    np.testing.assert_array_equal(
        found.grids["accuracy_at_zero"], [[0.4, 0.604, 0.8], [0.6, 0.5, np.nan]]
    )
    said = found.said()
    assert said.startswith("2 runs, each before training and after up to 2 epochs.")
    assert "accuracy at zero is 0.500 to 0.800 and AUC 0.700 to 0.900" in said
    # 0.4: all are called toxic; 0.604 and 0.6: none, nearly.
    assert "in 3 of 5 cells" in said
    accuracy = sweep_figures.by_epoch(found).axes[0]
    assert accuracy.get_title("left") == "accuracy at zero"
    drawn = np.ma.filled(accuracy.images[0].get_array(), np.nan)  # type: ignore[arg-type]
    np.testing.assert_array_equal(drawn, found.grids["accuracy_at_zero"])


def test_without_a_trace_nothing_is_said(runs: list[Run]) -> None:
    assert Epochs.of(runs[2:]) is None


def test_the_page_has_it(runs: list[Run], tmp_path: Path) -> None:
    found = sweep_page.report(collect([tmp_path]))
    assert "Recovery epoch by epoch" in [section.title for section in found.sections]
    assert "epochs" in [picture.name for picture in found.pictures]
