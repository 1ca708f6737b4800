"""Figures of groups of runs: what is drawn is what the runs say."""

import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from irl_exp.report import group_figures, sweep_figures
from irl_exp.report.run import Run
from tests.report.conftest import write_run, write_small_run


@pytest.fixture
def groups(tmp_path: Path) -> dict[str, list[Run]]:
    """Two runs of one alignment, and one of another."""
    for place, aligned in enumerate("aab"):
        folder = tmp_path / str(place)
        write_run(folder)
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["steps"]["align"] = aligned
        (folder / "manifest.json").write_text(json.dumps(manifest))
        summary = json.loads((folder / "summary.json").read_text())
        summary["policy/aligned/toxicity_rate"] = 0.1 * place
        (folder / "summary.json").write_text(json.dumps(summary))
    runs = [Run.read(tmp_path / str(place)) for place in range(3)]
    return {"first": runs[:2], "second": runs[2:]}


def drawn(figure: Figure | None) -> Figure:
    assert figure is not None
    assert sweep_figures.png(figure)[:4] == b"\x89PNG"
    return figure


def test_toxicity_of_every_policy(groups: dict[str, list[Run]]) -> None:
    figure = drawn(group_figures.toxicity(groups))
    truth, second = figure.axes
    assert "second classifier" in second.get_title("left")
    points = [bar.lines[0].get_xydata().tolist() for bar in truth.containers]
    # The reference, the aligned and the realigned policy; of each the first group and the second.
    assert [len(rows) for rows in points] == [2, 2, 2]
    assert points[1] == [pytest.approx([0.05, 0.0]), pytest.approx([0.2, 1.0])]


def test_an_alignment_is_drawn_once(groups: dict[str, list[Run]]) -> None:
    [axes] = drawn(group_figures.rlhf(groups)).axes
    lines = [line for line in axes.lines if line.get_linestyle() == "-"]
    assert len(lines) == 2
    run = groups["second"][0]
    kl, scores = (np.array(run.curve("align", f"objective/{n}")[1]) for n in ("kl", "scores"))
    end = lines[-1].get_xydata()[-1]
    np.testing.assert_allclose(end, [kl[-5:].mean(), scores[-5:].mean()])


def test_scores_are_standardized_and_pooled(groups: dict[str, list[Run]]) -> None:
    figure = drawn(group_figures.scores(groups))
    assert [axes.get_title("left") for axes in figure.axes] == ["first", "second"]
    clean, toxic = group_figures._by_label(groups["first"]) or ([], [])
    assert len(clean) + len(toxic) == 2 * 600
    assert np.mean([*clean, *toxic]) == pytest.approx(0, abs=1e-6)
    assert np.mean(clean) > np.mean(toxic)
    many = {str(place): groups["second"] for place in range(group_figures.PANELS + 1)}
    assert group_figures.scores(many) is None


def test_words_that_move_rewards(groups: dict[str, list[Run]]) -> None:
    figure = drawn(group_figures.words(groups))
    axes = figure.axes[0]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["R*", "first", "second"]
    words = [tick.get_text() for tick in axes.get_yticklabels()]
    assert len(words) == group_figures.WORDS and "please" in words
    table = groups["first"][0].attribution
    assert table is not None
    shown = np.asarray(axes.images[0].get_array())[words.index("please")]
    row = table.to_pandas().set_index("word").loc["please"]
    np.testing.assert_allclose(shown, [row["truth"], row["recovered"], row["recovered"]])


def test_seconds_by_step(groups: dict[str, list[Run]]) -> None:
    [axes] = drawn(group_figures.times([run for runs in groups.values() for run in runs])).axes
    longest = axes.get_yticklabels()[-1].get_text()
    run = groups["second"][0]
    expected = 3 * float(run.summary[f"time/{longest}_seconds"])
    assert axes.patches[-1].get_width() == pytest.approx(expected)


def test_runs_that_ended_early_have_no_figures(tmp_path: Path) -> None:
    groups = {"all runs": [Run.read(write_small_run(tmp_path / "a", status="failed"))]}
    for figure in (
        *(group_figures.toxicity, group_figures.rlhf, group_figures.scores, group_figures.words),
    ):
        assert figure(groups) is None
    assert group_figures.times(groups["all runs"]) is None
