"""Runs and sweeps that share a store: what is computed once, what another seed changes."""

import json
import sys
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from irl_exp.report import command
from tests.studies.lab import CONTROLS, STEPS, Lab, lines, read, results, summary


def test_a_second_run_finds_everything(smoke: Path, lab: Lab) -> None:
    again = lab.run()
    assert summary(again)["store/misses"] == 0
    assert summary(again)["store/hits"] == len(STEPS)
    assert results(again) == results(smoke)
    assert lines(again / "samples.jsonl") == lines(smoke / "samples.jsonl")
    assert lines(again / "metrics.jsonl") == lines(smoke / "metrics.jsonl")


def test_a_finished_run_is_not_run_again(smoke: Path, lab: Lab) -> None:
    before = (smoke / "status.json").read_bytes()
    lab.main(f"hydra.run.dir={smoke}")
    assert (smoke / "status.json").read_bytes() == before


@pytest.mark.parametrize("last", ["curate", "demonstrate", "identify"])
def test_until_stops_after_a_step(smoke: Path, lab: Lab, last: str) -> None:
    run = lab.run(f"until={last}")
    assert read(run / "status.json")["status"] == "done"
    done = tuple(read(run / "manifest.json")["steps"])
    assert done == STEPS[: STEPS.index(last) + 1]
    expected = {name: v for name, v in results(smoke).items() if name in results(run)}
    assert results(run) == expected
    assert any(n.startswith("recovery/") for n in results(run)) == (last == "identify")
    assert (run / "report.md").stat().st_size


@pytest.mark.slow
def test_the_same_seed_gives_the_same_digits(smoke: Path, lab: Lab, tmp_path: Path) -> None:
    fresh = lab.run(store=tmp_path / "store")
    assert summary(fresh)["store/hits"] == 0
    assert results(fresh) == results(smoke)


@pytest.mark.slow
def test_another_seed_gives_another_study(smoke: Path, lab: Lab) -> None:
    other = lab.run("seed=1", "until=pretrain")
    assert summary(other)["store/hits"] == 0
    assert results(other)["model/validation_loss"] != results(smoke)["model/validation_loss"]


@pytest.mark.slow
def test_a_sweep_of_recovery_computes_what_it_shares_once(lab: Lab, tmp_path: Path) -> None:
    sweep, store = tmp_path / "sweep", tmp_path / "store"
    arguments = ("-m", "solver=hinge,asymmetric", "seeds=recovery_only", "seed=range(0,2)")
    lab.main(*arguments, f"hydra.sweep.dir={sweep}", store=store)
    runs = sorted(path.parent for path in sweep.glob("*/status.json"))
    assert [read(run / "status.json")["status"] for run in runs] == ["done"] * 4
    computed = Counter(path.parent.parent.name for path in store.glob("*/[!.]*/manifest.json"))
    assert computed == {
        **{"curate": 1, "pretrain": 1, "demonstrate": 1},
        **{"ground_truth": 2, "ground_truth_quality": 1},  # R* and its twin; R* alone is measured
        "align": 1 + 4,  # the expert, and a realigned policy of each run
        "spent": 1,
        "observe": 2 + 4,
        # Each run's own, and of the controls those that draw for each seed: two of them do.
        "recover": 4 + len(CONTROLS) + 2,
        "scores": 2 + 4 + len(CONTROLS) + 2,  # of R*, its twin, and of all of these
        **{"evaluate_panel": 1, "evaluate": 4, "identify": 4, "interpret": 4},
    }
    assert sum(summary(run)["store/misses"] for run in runs) == sum(computed.values())
    upstream = STEPS[: STEPS.index("demonstrate") + 1]
    shared = {tuple(read(run / "manifest.json")["steps"][s] for s in upstream) for run in runs}
    assert len(shared) == 1
    assert len({results(run)["recovery/starc"] for run in runs}) == 4


def test_a_damaged_run_is_run_again(lab: Lab, tmp_path: Path) -> None:
    words = ("until=curate", f"hydra.run.dir={tmp_path}/run")
    lab.main(*words)
    known = (tmp_path / "run" / "summary.json").read_text()
    (tmp_path / "run" / "summary.json").write_text(known[: len(known) // 2])
    lab.main(*words)
    mended = read(tmp_path / "run" / "summary.json")
    assert mended.keys() == json.loads(known).keys()
    assert mended["store/misses"] == 0


@pytest.mark.slow
def test_a_sweep_is_reported(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A named sweep, less of it: what its seeds vary is what the report says, on one panel."""
    sweep = tmp_path / "sweep"
    place = f"hydra.sweep.dir={sweep}"
    lab.main("+sweep=non_identifiability", "seeds.demonstrations=0", "seeds.alignment=0", place)
    other = ("solver.epochs=5", "solver.trace=true", "seeds.demonstrations=1")
    lab.main("-m", "until=evaluate", *other, place)
    runs = [path.parent for path in sorted(sweep.glob("*/status.json"))]
    assert len(runs) == 5 and {read(run / "status.json")["status"] for run in runs} == {"done"}
    assert len({read(run / "manifest.json")["panel_digest"] for run in runs}) == 1
    assert len({read(run / "manifest.json")["steps"]["demonstrate"] for run in runs}) == 2
    assert len({read(run / "manifest.json")["steps"]["align"] for run in runs}) == 1

    monkeypatch.setattr(sys, "argv", ["irl-report", str(sweep)])
    command.main()
    pairs = pd.read_csv(sweep / "report" / "starc-pairs.csv")
    counts = {"initialization": 2, "order of data": 2, "recovery (initialization, order)": 2}
    assert Counter(pairs["varied"]) == {**counts, "demonstrations": 1, "several of these": 3}
    assert ((pairs["starc"] > 1e-3) & (pairs["starc"] < 1)).all()
    [square] = (sweep / "report").glob("starc-????????????????.csv")
    assert len(pd.read_csv(square)) == 5 + 1
    assert len(pd.read_csv(sweep / "report" / "results.csv")) == 5


@pytest.mark.slow
def test_seeds_can_be_set_apart(smoke: Path, lab: Lab) -> None:
    """Each changes its own step and what follows from that, and nothing before."""
    known = read(smoke / "manifest.json")["steps"]
    for seed, step in {
        "alignment": "align",
        "demonstrations": "demonstrate",
        "initialization": "recover",
        "order": "recover",
    }.items():
        steps = read(lab.run(f"seeds.{seed}=1", f"until={step}") / "manifest.json")["steps"]
        changed = [name for name, fingerprint in steps.items() if known[name] != fingerprint]
        follows = {"align": ["align", "observe_aligned"]}.get(step, [step])
        assert changed == follows, seed


@pytest.mark.parametrize(
    ("override", "line", "steps"),
    [
        (
            "demonstrations.prompts=100000",
            "demonstrations.prompts=100000: the train split has",
            {"curate"},
        ),
        ("model.learning_rate=1e30", "LanguageModeling: training diverged", {"curate", "pretrain"}),
    ],
)
def test_what_cannot_work_is_refused_before_it_is_published(
    lab: Lab, tmp_path: Path, override: str, line: str, steps: set[str]
) -> None:
    with pytest.raises(SystemExit, match=line):
        lab.run(override, store=tmp_path / "store")
    assert {folder.name for folder in (tmp_path / "store").glob("[!.]*")} == steps
    published = {path.parent.name for path in (tmp_path / "store").glob("[!.]*/[!.]*")}
    assert published == {"curate"}
