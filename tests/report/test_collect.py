"""Which runs there are, what differs between them, and their means, reckoned by hand."""

import json
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from irl_exp.report import NoReport
from irl_exp.report.collect import (
    DRIVERS,
    Mean,
    axes,
    collect,
    configurations,
    label,
    numbers,
    ordered,
    results,
    run_directories,
    seeds,
    seeds_apart,
)
from irl_exp.report.run import Run
from tests.report.conftest import write_small_run


def small(folder: Path, **facts: Any) -> Run:
    return Run.read(write_small_run(folder, **facts))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        *(("status.json", text) for text in ("null", "3", '{"status": 3}', "{}")),
        *(("manifest.json", text) for text in ("null", '"abc"', "[]")),
        *(("summary.json", text) for text in ("null", "[1, 2]")),
        *(("config.yaml", text) for text in ("seeds: x", "[1]", "solver: hinge")),
    ],
)
def test_a_file_of_another_shape_costs_one_run_alone(
    tmp_path: Path, name: str, content: str
) -> None:
    small(tmp_path / "whole", summary={"recovery/auc": 0.5})
    (write_small_run(tmp_path / "odd", order=1) / name).write_text(content)
    found = collect([tmp_path])
    assert [run.folder.name for run in found.done] == ["whole"]
    assert [folder.name for folder in found.unreadable] == ["odd"]


def test_done_without_a_summary_is_not_done(tmp_path: Path) -> None:
    write_small_run(tmp_path / "whole")
    for name in ("config.yaml", "summary.json"):
        (write_small_run(tmp_path / name, order=1) / name).unlink()
    found = collect([tmp_path])
    assert [run.folder.name for run in found.done] == ["whole"]
    assert [*found.unreadable.values()] == [
        "done, and yet it has no config.yaml",
        "done, and yet it has no summary.json",
    ]


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    write_small_run(tmp_path / "whole")
    names = ("config.yaml", "metrics.jsonl", "panel.parquet", "summary.json")
    for name in names:
        folder = write_small_run(tmp_path / name, order=1, recovered=[1, 2, 3, 4])
        (folder / name).write_text("{\n")
    found = collect([tmp_path])
    assert [why.split(":")[0] for why in found.unreadable.values()] == list(names)
    with pytest.raises(NoReport, match=r"summary\.json: .*; expected a run that can be read"):
        collect([tmp_path / "summary.json"])


def test_runs_are_found_wherever_they_lie(tmp_path: Path) -> None:
    """A folder of folders, a run itself; each once, and nothing inside a run or hidden."""
    first = write_small_run(tmp_path / "sweeps" / "one" / "a")
    second = write_small_run(tmp_path / "sweeps" / "two" / "b")
    write_small_run(first / "figures" / "inside")
    write_small_run(tmp_path / ".trash" / "hidden")
    assert list(run_directories(tmp_path)) == [first, second]
    found = collect([tmp_path / "sweeps" / "two", tmp_path, second])
    assert [run.folder for run in found.all] == [second, first]


def test_what_did_not_end_well_is_kept_apart(tmp_path: Path) -> None:
    for status in ("done", "failed", "interrupted", "running"):
        write_small_run(tmp_path / status, status=status)
    broken, empty = (write_small_run(tmp_path / name) for name in ("broken", "empty"))
    (broken / "summary.json").write_text("{")
    (empty / "status.json").write_text("{}")
    found = collect([tmp_path])
    assert [run.folder.name for run in found.done] == ["done"]
    assert [run.folder.name for run in found.others] == ["failed", "interrupted", "running"]
    assert list(found.unreadable) == [broken, empty]
    assert not any("\n" in reason for reason in found.unreadable.values())


def test_a_study_counts_once(tmp_path: Path) -> None:
    """Equal ids are equal studies, unless the files that they name are not equal."""
    first, again, other = (write_small_run(tmp_path / name) for name in ("a", "b", "c"))
    for folder in (first, again, other):
        (folder / "status.json").write_text('{"run_id": "x", "status": "done"}')
    (other / "manifest.json").write_text('{"inputs": {"dataset.path": "changed"}}')
    found = collect([tmp_path])
    assert [run.folder for run in found.all] == [first, other]
    assert found.repeats == {again: first}


@pytest.mark.parametrize("name", ["missing", "empty"])
def test_a_folder_without_runs_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(NoReport, match=f"{name}: no (such folder|run in it); expected"):
        collect([tmp_path / name])


def test_a_choice_stands_for_what_comes_with_it(tmp_path: Path) -> None:
    """solver.epochs follows solver.name, and rlhf.kl_coef follows nothing."""
    hinge, svm = {"name": "hinge", "epochs": 3}, {"name": "svm", "folds": 5}
    runs = [
        small(tmp_path / f"{i}", config={"solver": solver, "rlhf": {"kl_coef": beta}, "tags": [i]})
        for i, (solver, beta) in enumerate([(hinge, 0.1), (svm, 0.1), (hinge, 0.3)])
    ]
    assert [axis.name for axis in axes(runs)] == ["solver", "rlhf.kl_coef"]
    # Where one choice comes with several values, they are an axis too.
    more = small(tmp_path / "3", config={"solver": {"name": "hinge", "epochs": 9}})
    assert [axis.name for axis in axes([*runs, more])][:2] == ["solver", "solver.epochs"]


def test_seeds_that_move_together_are_one(tmp_path: Path) -> None:
    def named(*runs: Run) -> list[str]:
        assert all(axis.seed for axis in axes(runs))
        return [axis.name for axis in axes(runs)]

    base = small(tmp_path / "base")
    everything = small(tmp_path / "all", **dict.fromkeys(DRIVERS, 1), recovery=1)
    recovery = small(tmp_path / "recovery", recovery=1, initialization=1, order=1)
    order = small(tmp_path / "order", order=1)
    assert named(base, everything) == ["seed"]
    assert named(base, recovery) == ["recovery"]
    assert named(base, recovery, order) == ["initialization", "order"]
    assert seeds_apart(base, recovery) == {"initialization", "order"}
    assert seeds_apart(recovery, order) == {"initialization"}


def test_seeds_of_a_run_that_knew_three(tmp_path: Path) -> None:
    run = small(tmp_path / "old", config={"seeds": {"data": 1, "policy": 2, "recovery": 3}})
    assert seeds(run) == {
        **{"data": 1, "policy": 2, "alignment": 2, "demonstrations": 2},
        **{"initialization": 3, "order": 3},
    }


def test_runs_stand_in_the_order_of_what_varied(tmp_path: Path) -> None:
    """The commonest first, then by size, numbers as numbers; the last axis innermost."""
    runs = [
        small(tmp_path / f"{k}-{seed}", config={"demonstrations": {"k": k}}, order=seed)
        for k, seed in [(10, 0), (10, 1), (2, 0), (4, 7), (4, 0), (4, 1)]
    ]
    named = axes(runs)
    assert [run.folder.name for run in ordered(runs, named)] == [
        *("4-0", "4-1", "4-7", "2-0", "10-0", "10-1"),
    ]
    groups = configurations(runs, named)
    assert {name: len(group) for name, group in groups.items()} == {
        "demonstrations.k=4": 3,
        "demonstrations.k=2": 1,
        "demonstrations.k=10": 2,
    }
    assert label(runs[0], []) == "all runs"


def test_means_and_intervals(tmp_path: Path) -> None:
    """t of 95 %: 12.706 with one degree of freedom, 4.3027 with two."""
    auc = "recovery/auc"
    found = [0.7, 0.9, 0.8, "not applicable", math.nan]
    runs = [small(tmp_path / f"{i}", summary={auc: x}) for i, x in enumerate(found)]
    two, three = Mean.of(numbers(runs[:2], auc)), Mean.of(numbers(runs, auc))
    assert two and three
    assert (two.mean, two.n) == (pytest.approx(0.8), 2)
    assert two.high - two.mean == pytest.approx(12.7062 * math.sqrt(0.02) / math.sqrt(2), rel=1e-4)
    assert three.mean - three.low == pytest.approx(4.30265 * 0.1 / math.sqrt(3), rel=1e-4)
    assert three.text(3) == "0.800±0.248"
    assert three.text(5) == "0.800±0.248 (n=3)"
    assert Mean.of([0.5]) == Mean(0.5, 0.5, 0.5, 1)
    assert Mean(0.5, 0.5, 0.5, 1).text(1) == "0.500"
    assert Mean.of([]) is None


def test_a_number_can_be_known_by_its_end(tmp_path: Path) -> None:
    noise = {"placebo/identified_fraction": 0.05, "recovery/identified_fraction": 0.4}
    run = small(tmp_path / "run", summary=noise)
    assert numbers([run], "recovery/identified_fraction") == [0.4]
    assert numbers([run], "/nothing") == []


def test_results_have_a_row_a_run(tmp_path: Path) -> None:
    small(tmp_path / "a", summary={"recovery/auc": 0.9, "control/log_ratio/auc": 0.8})
    failed = {"status": "failed", "error": "one\ntwo", "config": {"solver": {"name": "svm"}}}
    write_small_run(tmp_path / "b", **failed)
    write_small_run(tmp_path / "c", order=2, summary={"control/log_ratio/auc": "not applicable"})
    table = results(collect([tmp_path]).all)
    table.to_parquet(tmp_path / "results.parquet")
    assert json.loads(pd.read_parquet(tmp_path / "results.parquet").to_json(orient="records")) == [
        {
            **{"folder": str(tmp_path / name), "status": status, "error": error},
            **{"solver": solver, "order": order},
            **{"control/log_ratio/auc": ratio, "recovery/auc": auc},
        }
        for name, status, error, solver, order, ratio, auc in [
            ("a", "done", "", "hinge", 0, 0.8, 0.9),
            ("b", "failed", "one two", "svm", 0, None, None),
            ("c", "done", "", "hinge", 2, None, None),
        ]
    ]
