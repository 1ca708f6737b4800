"""irl-report as it is typed: where it writes, what it leaves alone, what it refuses."""

import subprocess
import sys
from pathlib import Path

import pytest

from irl_exp.report import NoReport, command
from tests.report.conftest import write_small_run
from tests.report.test_distances import EAST, NORTH


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    write_small_run(tmp_path / "sweep" / "a", recovered=EAST, summary={"recovery/auc": 0.7})
    write_small_run(tmp_path / "sweep" / "b", recovered=NORTH, order=1)
    return tmp_path / "sweep"


def irl_report(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "irl_exp.report.command", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True)


def names(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def test_a_sweep_is_reported_in_its_folder(sweep: Path) -> None:
    done = irl_report(sweep)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == f"report: {sweep / 'report' / 'index.html'}"
    assert names(sweep / "report") == {
        *(".irl-report.json", "index.html", "report.md", "results.csv", "results.parquet"),
        *("starc-d1.csv", "starc-pairs.csv", "figures/starc-d1.png", "figures/starc-d1.svg"),
    }


def test_again_it_replaces_what_is_its_own(sweep: Path) -> None:
    command.run([sweep], None)
    (sweep / "report" / "notes.txt").write_text("mine")
    (sweep / "b" / "status.json").write_text('{"status": "failed"}')  # no pair is left
    command.run([sweep], None)
    assert names(sweep / "report") == {
        *(".irl-report.json", "index.html", "report.md", "results.csv", "results.parquet"),
        "notes.txt",
    }
    assert (sweep / "report" / "notes.txt").read_text() == "mine"


def test_what_it_did_not_write_is_not_written_over(sweep: Path) -> None:
    out = sweep.parent / "out"
    out.mkdir()
    (out / "results.csv").write_text("mine")
    with pytest.raises(NoReport, match=r"results\.csv: not written by irl-report; expected"):
        command.run([sweep], out)
    assert names(out) == {"results.csv"}
    assert (out / "results.csv").read_text() == "mine"


def test_what_was_changed_since_is_kept(sweep: Path) -> None:
    command.run([sweep], None)
    page, matrix = (sweep / "report" / name for name in ("report.md", "figures/starc-d1.png"))
    (sweep / "b" / "status.json").write_text('{"status": "failed"}')  # no matrix is left
    matrix.write_bytes(b"cropped")
    command.run([sweep], None)
    assert matrix.read_bytes() == b"cropped"
    page.write_text(page.read_text() + "my remarks")
    with pytest.raises(NoReport, match=r"report\.md: changed since irl-report wrote it; move it"):
        command.run([sweep], None)
    assert page.read_text().endswith("my remarks")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["nowhere"], "nowhere: no such folder; expected runs or sweeps"),
        (["."], ".: no run in it; expected a folder with a status.json below"),
        (["file"], "file: a file; expected runs or sweeps"),
        (["sweep/a"], "sweep/a: one run; expected -o OUT, where the report is to go"),
        (["sweep", "sweep/a"], "2 folders; expected -o OUT, where the report is to go"),
        (["sweep", "-o", "file"], "file: a file; expected a folder, or a new name"),
        (["sweep", "-o", "file/out"], "file/out: Not a directory"),
        (
            ["sweep", "-o", "damaged"],
            "damaged/.irl-report.json: damaged; remove it, and what the report wrote",
        ),
    ],
)
def test_what_is_refused(
    sweep: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], line: str
) -> None:
    (sweep.parent / "empty").mkdir()
    (sweep.parent / "file").write_text("")
    (sweep.parent / "damaged").mkdir()
    (sweep.parent / "damaged" / command.OWN).write_text("[")
    monkeypatch.chdir(sweep.parent / "empty" if words == ["."] else sweep.parent)
    monkeypatch.setattr(sys, "argv", ["irl-report", *words])
    with pytest.raises(SystemExit) as refused:
        command.main()
    assert refused.value.code == f"irl-report: {line}"


# --- released results -----------------------------------------------------------------------------


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """One file of rewards, one of curves."""
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / "a.json").write_text('{"true_reward": [1, -1, 2], "x": [1, 1, 2], "y": [0, 0, 3]}')
    (folder / "b.json").write_text('{"accuracies": [0.5, 0.75]}')
    return folder


def test_released_results_are_reported(results: Path) -> None:
    (results / "odd.json").write_text("[")
    done = irl_report("released", results)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == f"report: {results / 'report' / 'index.html'}"
    assert "1 left out; all else is of what could be read." in done.stdout
    pictures = [f"figures/{n}.{kind}" for n in RELEASED_FIGURES for kind in ("png", "svg")]
    assert names(results / "report") == {
        *(".irl-report.json", "index.html", "report.md", "rewards.csv", "curves.csv"),
        *("toxicity.csv", *pictures),
    }
    page = (results / "report" / "index.html").read_text(encoding="utf-8")
    assert "2 rewards in 1 files, curves of 1 runs; 1 left out." in page
    assert page.count('<a href="../a.json">') == 2
    command.run_released(results, None)  # its own report is no input


RELEASED_FIGURES = ("best", "agreement", "epochs-1")


def test_curves_alone_make_a_page_without_a_listing(results: Path) -> None:
    (results / "a.json").unlink()
    command.run_released(results, None)
    page = (results / "report" / "index.html").read_text(encoding="utf-8")
    assert "<script>" not in page and "everything" not in page


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["nowhere"], "nowhere: no such folder; expected a folder with released JSON files"),
        (["results/a.json"], "results/a.json: a file; expected a folder with released JSON files"),
        (
            ["empty"],
            'empty: 0 JSON files, none with "true_reward" or "accuracies" that can be read',
        ),
        (["results"], "results: not to be written to; expected -o OUT for the report"),
    ],
)
def test_what_is_refused_of_released_results(
    results: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], line: str
) -> None:
    (results.parent / "empty").mkdir()
    monkeypatch.chdir(results.parent)
    monkeypatch.setattr(sys, "argv", ["irl-report", "released", *words])
    # Whoever tests as root may write everywhere.
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(SystemExit) as refused:
        command.main()
    assert refused.value.code == f"irl-report: {line}"
    assert not (results / "report").exists()


def test_a_folder_called_released_is_one_of_runs(
    sweep: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep.rename(sweep.parent / "released")
    monkeypatch.chdir(sweep.parent)
    monkeypatch.setattr(sys, "argv", ["irl-report", "./released"])
    command.main()
    assert (sweep.parent / "released" / "report" / "results.csv").is_file()
