"""Sweeps by every launcher and sweeper that is offered, each really started."""

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
import yaml

from irl_exp.data import synthetic
from irl_exp.sweep import ENDED, Progress, note, span
from tests import warm

pytestmark = pytest.mark.slow

# One expert, two solvers: two processes that begin at once want the same steps.
SWEEP = ("-m", "+debug=smoke", "until=evaluate", "dataset.size=1200", "solver=hinge,svm")


def irl_exp(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Typed in the folder, by a process of its own: launchers start theirs from it."""
    folder.mkdir(exist_ok=True)
    line = [sys.executable, "-m", "irl_exp", *words, "trainer.threads=1", "paths.store=store"]
    return subprocess.run(line, cwd=folder, capture_output=True, text=True)


def computed(folder: Path) -> Counter[str]:
    """How many artifacts of each step its store holds."""
    found = folder.glob("store/*/[!.]*/manifest.json")
    return Counter(path.parent.parent.name for path in found)


def results(folder: Path) -> pd.DataFrame:
    done = subprocess.run([warm.command("irl-report"), "sweeps/adhoc"], cwd=folder)
    assert done.returncode == 0
    table = pd.read_csv(folder / "sweeps" / "adhoc" / "report" / "results.csv")
    # What a run found in the store, and so how long it took, is chance.
    return table[[name for name in table if not re.match("time/|store/", name)]]


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("basic")
    done = irl_exp(folder, *SWEEP)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("2 of 2 runs over in ")
    return folder


@pytest.mark.parametrize("launcher", ["joblib", "submitit_local", "ray"])
def test_every_launcher_comes_to_the_same(swept: Path, tmp_path: Path, launcher: str) -> None:
    done = irl_exp(tmp_path, *SWEEP, f"hydra/launcher={launcher}")
    assert done.returncode == 0, done.stderr
    assert "2 of 2 runs over in " in done.stdout
    assert computed(tmp_path) == computed(swept)  # by two at once, and nothing twice
    pd.testing.assert_frame_equal(results(tmp_path), results(swept))


def test_what_failed_another_launcher_finishes(tmp_path: Path) -> None:
    """And a run that fails is reported as by the basic one."""
    tables = {}
    for seed, name in enumerate(("a.csv", "b.csv", "c.csv")):
        rows = [(comment.text, comment.toxic) for comment in synthetic.generate(400, seed=seed)]
        tables[name] = pd.DataFrame(rows, columns=["comment", "toxic"])
    words = (
        *("-m", "+debug=smoke", "until=curate", "dataset=file", f"dataset.path={','.join(tables)}"),
        *("dataset.text_column=comment", "dataset.label_column=toxic"),
    )

    tables["a.csv"].to_csv(tmp_path / "a.csv", index=False)
    for launcher, missing, new in ("joblib", ["b", "c"], "b.csv"), ("ray", ["c"], "c.csv"):
        broken = irl_exp(tmp_path, *words, f"hydra/launcher={launcher}")
        assert broken.returncode == 1
        assert f"1 done, {len(missing)} failed" in broken.stdout
        lines = broken.stderr[broken.stderr.index("irl-exp: ") :].splitlines()
        assert lines[0].endswith("failed; launched again, the sweep runs what is missing")
        failures = sorted(line for line in lines[1:] if line.startswith("  sweeps/"))
        for name, line in zip(missing, failures, strict=True):  # ray may say more
            assert re.match(rf"  sweeps/adhoc/path-{name}\.csv_\S+: .*{name}\.csv", line)
        tables[new].to_csv(tmp_path / new, index=False)

    mended = irl_exp(tmp_path, *words)
    assert mended.returncode == 0, mended.stderr
    assert mended.stdout.splitlines()[-1].endswith("1 done, 2 skipped")
    assert computed(tmp_path) == {"curate": 3}


def test_a_sweeper_finds_the_best(tmp_path: Path) -> None:
    """The largest validation AUC among the runs that it made."""
    done = irl_exp(
        tmp_path,
        *(*SWEEP, "hydra/sweeper=optuna", "hydra.sweeper.n_jobs=1"),
        *("hydra.sweeper.n_trials=3", "hydra.sweeper.direction=maximize"),
        "hydra.sweeper.sampler.seed=0",
    )
    assert done.returncode == 0, done.stderr
    found = yaml.safe_load(
        (tmp_path / "sweeps" / "adhoc" / "optimization_results.yaml").read_text()
    )
    table = results(tmp_path)
    assert found["best_value"] == table["validation/recovery_auc"].max()
    assert 1 <= len(table) <= 2


# --- what is said on the way ----------------------------------------------------------------------


def test_runs_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Those of this launch, each once: what another launch did meanwhile was done."""
    note(tmp_path, "earlier", "failed")
    progress = Progress(tmp_path, 5)
    progress.started -= 120
    for run, how in ("a", "done"), ("b", "failed"), ("c", "skipped"), ("a", "skipped"):
        note(tmp_path, run, how)
    note(tmp_path, "c", "done")
    with (tmp_path / ENDED).open("a") as file:
        file.write('{"run": "d", "how"')  # on its way
    progress.start()
    said = ""
    while not said:
        said = capsys.readouterr().out
    assert said == "3 of 5 runs over in 2 min: 2 done, 1 failed; at this pace 2 min to go\n"
    assert progress.conclude() == "3 of 5 runs over in 2 min: 2 done, 1 failed"
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.4, "0 s"), (59, "59 s"), (75, "1 min"), (7100, "118 min"), (9000, "2.5 h")],
)
def test_spans(seconds: float, said: str) -> None:
    assert span(seconds) == said
