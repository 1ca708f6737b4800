"""The report of many runs: what it says, what it writes, and that it is complete."""

import json
import re
from io import BytesIO
from pathlib import Path

import matplotlib.image
import numpy as np
import pandas as pd
import pytest

from irl_exp.report import document, sweep_figures, sweep_page
from irl_exp.report.collect import collect
from irl_exp.report.distances import matrices
from irl_exp.report.tables import Table
from tests.report.conftest import write_small_run
from tests.report.test_distances import DIAGONAL, EAST, HALF, NORTH, RIGHT_ANGLE

FLOOR = {"recovery/starc_floor": 0.2}


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Three that are done, at two numbers of prompts; one with a panel of its own, one failed."""
    folder, few = tmp_path / "sweep", {"config": {"demonstrations": {"prompts": 10}}}
    many = {"config": {"demonstrations": {"prompts": 50}}}

    def summary(auc: float) -> dict[str, float | str]:
        return {"recovery/auc": auc, "time/recover_seconds": 2.0, **FLOOR}

    write_small_run(folder / "a", recovered=EAST, summary=summary(0.7), **few)
    write_small_run(folder / "b", recovered=NORTH, summary=summary(0.8), order=1, **few)
    write_small_run(folder / "c", recovered=DIAGONAL, summary=summary(0.9), **many)
    write_small_run(folder / "lonely", recovered=EAST, summary=summary(0.9), digest="d2", data=1)
    write_small_run(folder / "broke", status="failed", error="too\nlittle of | it", **many)
    return folder


def report(folder: Path) -> document.Report:
    return sweep_page.report(collect([folder]))


def tables(found: document.Report) -> dict[str, dict[str, list[str]]]:
    """First column's title -> the rows by their first cell."""
    parts = [part for section in found.sections for part in section.body]
    return {
        part.header[0]: {row[0]: row[1:] for row in part.rows}
        for part in parts
        if isinstance(part, Table)
    }


def test_the_tables_by_hand(sweep: Path) -> None:
    found = report(sweep)
    titles = {tuple(p.header): p for s in found.sections for p in s.body if isinstance(p, Table)}
    means = next(t for header, t in titles.items() if "AUC" in header)
    assert means.header == ["runs", "n", "AUC", "floor", "recover, s"]
    assert means.rows[0] == [
        *("demonstrations.prompts=10", "2", "0.750±0.635", "0.200±0", "2.00±0"),
    ]
    spread = next(t for header, t in titles.items() if "to R*" in header)
    few, many = (f"demonstrations.prompts={n}" for n in (10, 50))
    assert spread.rows == [
        [few, "2", "0.354", "0.500", "0.707", "–", "0.707", "0.383", "0.200"],
        [many, "1", "0.383", "–", "–", "–", "–", "0.383", "0.200"],
    ]
    split = titles["what varied", "runs", "pairs", "mean", "sd"]
    assert split.rows == [["order of data", "demonstrations.prompts=10", "1", "0.707", "–"]]


def test_controls_are_held_against_the_reward_of_their_own_run(tmp_path: Path) -> None:
    """What the seeds draw falls out of a difference: 0.3 and 0.5 less 0.4 and 0.6."""
    for seed, (ours, control) in enumerate([(0.4, 0.3), (0.6, 0.5)]):
        summary: dict[str, float | str] = {
            "recovery/starc": ours,
            "time/recover_seconds": 4.0,
            "control/length/starc": control,
            "control/log_ratio/starc": "not applicable",
        }
        write_small_run(tmp_path / str(seed), recovered=EAST, summary=summary, order=seed)
    table = tables(report(tmp_path))["reward"]
    mine, length, none = table.values()
    assert list(table) == ["R̂ (hinge)", "length", "log_ratio"]
    assert mine == ["0.500±1.27", "0.141", "–", "4.00±0"]
    assert length == ["0.400±1.27", "0.141", "-0.100±0.000", "–"]
    assert none == ["–"] * 4


def test_an_audit_is_told_by_what_it_has(tmp_path: Path) -> None:
    for seed, share in enumerate((0.7, 0.8)):
        summary: dict[str, float | str] = {
            "audit/preference_accuracy": share,
            "control/length/preference_accuracy": 0.5,
            "recovery/auc": "not applicable",
        }
        write_small_run(tmp_path / str(seed), recovered=EAST, summary=summary, order=seed)
    found = report(tmp_path)
    table = tables(found)["reward"]
    assert table["length"] == ["0.500±0"] and len(table["R̂ (hinge)"]) == 1
    page = document.files(found)["report.md"].decode()
    assert "| reward | prefers the aligned |" in page and "nearer to R*" not in page


def test_rewards_side_by_side_are_in_order(tmp_path: Path) -> None:
    near, far, none = [0.1, 0.3], [0.5, 0.7], [0.4, 0.4]
    found = {
        "R̂": {"STARC": far, "accuracy": [0.8, 0.9], "AUC": []},
        "length": {"STARC": none, "accuracy": [], "AUC": []},
        "oracle": {"STARC": near, "accuracy": [0.9, 0.9], "AUC": []},
    }
    starc, accuracy = sweep_figures.side_by_side(found, "R̂").axes
    assert [label.get_text() for label in starc.get_yticklabels()] == ["oracle", "length", "R̂"]
    assert [bar.lines[0].get_xydata().tolist() for bar in starc.containers] == [
        [[pytest.approx(0.2), 0]],
        [[pytest.approx(0.4), 1]],
        [[pytest.approx(0.6), 2]],
    ]
    assert len(accuracy.containers) == 2  # what has no number has no point


def test_the_figure_of_controls_stands_below_their_table(tmp_path: Path) -> None:
    for seed in range(2):
        write_small_run(
            tmp_path / str(seed),
            summary={"recovery/starc": 0.2, "control/length/starc": 0.6},
            order=seed,
        )
    written = document.files(report(tmp_path))
    assert "figures/rewards-1.png" in written and b"(figures/rewards-1.png)" in written["report.md"]


def test_a_warning_is_said_once(sweep: Path) -> None:
    for name, auc in (("a", 0.51), ("b", 0.52), ("c", 0.53)):
        status = {"run_id": name, "status": "done", "warnings": [f"R* is at chance ({auc})"]}
        (sweep / name / "status.json").write_text(json.dumps(status))
    assert tables(report(sweep))["warning"] == {"R* is at chance (0.51)": ["3"]}


def test_nothing_is_dropped_silently(sweep: Path) -> None:
    (sweep / "b" / "status.json").write_text('{"run_id": "a", "status": "done"}')
    (write_small_run(sweep / "unreadable") / "manifest.json").write_text("{")
    found = report(sweep)
    left_out = tables(found)["not counted"]
    assert left_out[str(sweep / "broke")] == ["failed", "too little of | it"]
    assert left_out[str(sweep / "unreadable")][0] == "unreadable"
    assert left_out[str(sweep / "b")] == ["repeated", f"the study of {sweep / 'a'}"]
    page = document.files(found)["report.md"].decode()
    assert "5 runs, of which 3 are done" in page and r"too little of \| it" in page
    assert "No other run has the panel of lonely" in page


def test_the_page_links_what_is_written(sweep: Path) -> None:
    written = document.files(report(sweep))
    links = re.findall(r"\]\((.+?)\)", written["report.md"].decode())
    assert sorted(links) == sorted({"index.html", *written.keys() - {"report.md"}})
    drawn = ("starc-d1", "curve-demonstrations.prompts")
    assert written.keys() == {
        *("report.md", "results.csv", "results.parquet", "starc-d1.csv", "starc-pairs.csv"),
        *(f"figures/{name}.{kind}" for name in drawn for kind in ("png", "svg")),
    }
    assert "best" not in written["report.md"].decode().lower()


def test_the_tables_behind_the_figures(sweep: Path) -> None:
    written = document.files(report(sweep))
    square = pd.read_csv(BytesIO(written["starc-d1.csv"]), index_col="run")
    assert list(square.index) == ["base", "order 1", "demonstrations.prompts 50", "R*"]
    assert square.loc["R*", "demonstrations.prompts 50"] == pytest.approx(HALF)
    assert square.loc["order 1", "base"] == square.loc["base", "order 1"]
    pairs = pd.read_csv(BytesIO(written["starc-pairs.csv"])).to_dict("records")
    assert [(p["first"], p["second"], p["varied"]) for p in pairs] == [
        ("base", "order 1", "order of data")
    ]
    assert pairs[0]["starc"] == pytest.approx(RIGHT_ANGLE)
    assert len(pd.read_csv(BytesIO(written["results.csv"]))) == 5


def test_figures_can_be_seen(sweep: Path) -> None:
    for name, content in document.files(report(sweep)).items():
        if name.endswith(".png"):
            pixels = matplotlib.image.imread(BytesIO(content), format="png")
            assert pixels.shape[0] > 200 and pixels.std() > 0.05


def test_the_heat_map_has_a_cell_a_pair(sweep: Path) -> None:
    [matrix], _ = matrices(collect([sweep]).done)
    axes, _ = sweep_figures.heat_map(matrix).axes
    image = np.ma.filled(axes.images[0].get_array(), np.nan)
    assert image.shape == (4, 4) and np.isnan(np.diag(image)).all()
    np.testing.assert_allclose(image[3, :3], matrix.to_truth)
    np.testing.assert_allclose(image[0, 1], matrix.between[0, 1])
    assert [tick.get_text() for tick in axes.get_yticklabels()] == [
        *("base   1", "order 1   2", "demonstrations.prompts 50   3", "R*"),
    ]


def test_one_run_and_none_that_is_done(tmp_path: Path) -> None:
    write_small_run(tmp_path / "a", status="interrupted")
    assert [s.title for s in report(tmp_path).sections] == ["Runs"]
    write_small_run(tmp_path / "b", summary={"recovery/auc": 0.9})
    assert tables(report(tmp_path))["runs"] == {"all runs": ["1", "0.900"]}


def test_what_is_shown_in_the_terminal(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document.show(report(sweep), sweep / "report")
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == f"report: {sweep / 'report' / 'index.html'}"
    for word in ("Means over seeds", "0.750±0.635", "order of data", "failed", "lonely"):
        assert word in out
