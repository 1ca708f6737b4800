"""The mirror at wandb, as its own offline files have it; and that nothing there can fail a run."""

import fcntl
import json
import os
import re
import struct
import subprocess
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any, ClassVar

import pytest
import yaml
from omegaconf import OmegaConf
from wandb.proto.wandb_internal_pb2 import Record
from wandb.wandb_agent import Agent

from irl_exp.config import InputError, WandbTracker
from irl_exp.tracking import Tracker, Wandb
from tests import warm

SMALL = ("+debug=smoke", "trainer.threads=1", "dataset.size=400")


def irl_exp(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [warm.command("irl-exp"), *SMALL, f"paths.store={folder}/store", *words],
        capture_output=True,
        text=True,
        cwd=folder,
        # Without what the machine knows of wandb.
        env={
            "PATH": "",
            "HOME": str(folder),
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
            **environment,
        },
        stdin=subprocess.DEVNULL,
    )


# --- reading what wandb wrote -------------------------------------------------------------------


def records(run: Path) -> list[Record]:
    """All records of the one offline run below a run directory."""
    [path] = run.glob("wandb/offline-run-*/*.wandb")
    found = []
    for data in log_entries(path.read_bytes()):
        record = Record()
        record.ParseFromString(data)
        found.append(record)
    return found


def log_entries(data: bytes) -> Iterator[bytes]:
    """The entries of a LevelDB log: blocks of 32 KiB, of chunks with crc, length and kind (whole,
    first, middle or last part of an entry); wandb puts seven bytes in front of all."""
    place, entry = 7, b""
    while place + 7 <= len(data):
        room = 32768 - place % 32768
        if room < 7:
            place += room
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + 7])
        entry += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            yield entry
            entry = b""


def items(found: Any) -> dict[str, Any]:
    """Key -> value of a list of wandb's items, whose keys are plain or nested."""
    return {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in found}


def header(run: Path) -> Any:
    return next(r.run for r in records(run) if r.WhichOneof("record_type") == "run")


def history(run: Path) -> list[dict[str, Any]]:
    rows = [items(r.history.item) for r in records(run) if r.WhichOneof("record_type") == "history"]
    return [{k: v for k, v in row.items() if not k.startswith("_")} for row in rows]


def exit_codes(run: Path) -> list[int]:
    return [r.exit.exit_code for r in records(run) if r.WhichOneof("record_type") == "exit"]


def summary(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for record in records(run):
        if record.WhichOneof("record_type") == "summary":
            found |= items(record.summary.update)
    return found


# --- what is mirrored ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two runs in one process, by their solvers."""
    folder = tmp_path_factory.mktemp("wandb")
    words = ["tracker=wandb_offline", "tracker.log_rewards=true", "tags=[a]", "extra_tags=[b]"]
    done = irl_exp(folder, "-m", "solver=logistic,length", "name=two", "until=recover", *words)
    assert done.returncode == 0, done.stderr
    runs = (folder / "sweeps" / "two").glob("*/status.json")
    return {
        yaml.safe_load((p.parent / "config.yaml").read_text())["solver"]["name"]: p.parent
        for p in runs
    }


@pytest.mark.slow
def test_runs_of_one_process_are_runs_of_their_own(sweep: dict[str, Path]) -> None:
    assert set(sweep) == {"logistic", "length"}
    for solver, run in sweep.items():
        resolved = yaml.safe_load((run / "config.yaml").read_text())
        manifest = json.loads((run / "manifest.json").read_text())
        found = items(header(run).config.update)
        found.pop("_wandb", None)
        assert found == {**resolved, "run_id": manifest["run_id"]}
        assert found["solver"]["name"] == solver
        assert header(run).run_id == manifest["wandb"]["id"]
        assert header(run).display_name == run.name
        assert (header(run).run_group, header(run).job_type) == ("two", "smoke")
        assert list(header(run).tags) == ["a", "b"]
        assert exit_codes(run) == [0]


@pytest.mark.slow
def test_the_history_is_that_of_the_run_directory(sweep: dict[str, Path]) -> None:
    for run in sweep.values():
        expected = []
        for line in (run / "metrics.jsonl").read_text().splitlines():
            record = json.loads(line)
            step = record.pop("step")
            expected.append({f"{step}/{name}": value for name, value in record.items()})
        assert len(expected) > 5
        curves = [
            row
            for row in history(run)
            if not any(key.startswith(("figures/", "samples")) for key in row)
        ]
        assert curves == expected


@pytest.mark.slow
def test_curves_have_their_own_axes(sweep: dict[str, Path]) -> None:
    metrics = [
        r.metric for r in records(sweep["logistic"]) if r.WhichOneof("record_type") == "metric"
    ]
    axes = {m.glob_name: m.step_metric for m in metrics if m.glob_name}
    assert axes["align/*"] == "align/global_step"
    assert axes["recover/*"] == "recover/global_step"


@pytest.mark.slow
def test_the_summary_is_that_of_the_run_directory(sweep: dict[str, Path]) -> None:
    for run in sweep.values():
        expected = json.loads((run / "summary.json").read_text())
        found = summary(run)
        assert {name: found[name] for name in expected} == expected
        others = {name.split("/")[0] for name in found.keys() - expected.keys()}
        assert others <= {"figures", "samples", "_wandb", "_step", "_runtime", "_timestamp"}


@pytest.mark.slow
def test_samples_figures_and_rewards(sweep: dict[str, Path]) -> None:
    for solver, run in sweep.items():
        last = history(run)[-1]
        drawn = {f"figures/{path.stem}" for path in (run / "figures").glob("*.png")}
        shown = {"/".join(key.split("/")[:2]) for key in last if key.startswith("figures/")}
        assert drawn and drawn == shown
        lines = (run / "samples.jsonl").read_text().splitlines()
        assert (last["samples/_type"], last["samples/nrows"]) == ("table-file", len(lines))
        artifacts = [r.artifact for r in records(run) if r.WhichOneof("record_type") == "artifact"]
        [reward] = [a for a in artifacts if a.type == "reward"]
        names = {entry.path for entry in reward.manifest.contents}
        assert "reward.json" in names
        assert ("model.safetensors" in names) == (solver == "logistic")


# --- sweeps that wandb leads --------------------------------------------------------------------


def test_a_run_of_an_agent_is_the_one_that_it_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sweep of docs/wandb.md, its first run begun by wandb's own agent, small and offline."""
    page = (Path(__file__).parent.parent / "docs" / "wandb.md").read_text(encoding="utf-8")
    [block] = re.findall(r"^```yaml\n(.*?)^```", page, re.M | re.S)
    sweep = yaml.safe_load(block)
    assert sweep["metric"] == {"name": "validation/recovery_auc", "goal": "maximize"}
    small = {"tracker=wandb": "tracker=wandb_offline", "until=evaluate": "until=curate"}
    assert small.keys() <= set(sweep["command"])
    chosen = {
        key: values["min"] if "min" in values else values["values"][-1]
        for key, values in sweep["parameters"].items()
    }

    # What an agent sets is undone; what the machine knows of wandb is not asked.
    for name in ("WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH", "WANDB_DIR", "WANDB_PROJECT"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep123")
    monkeypatch.setenv("WANDB_PROJECT", "of-the-sweep")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", f"{Path(warm.command('irl-exp')).parent}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    agent = Agent(api=None, queue=None, sweep_id="sweep123")
    agent._sweep_command = [*(small.get(word, word) for word in sweep["command"]), *SMALL]
    args = {key: {"value": value} for key, value in chosen.items()}
    agent._command_run({"run_id": "abcd1234", "program": sweep["program"], "args": args})
    assert agent._run_processes["abcd1234"]._popen.wait(timeout=300) == 0

    run = tmp_path / "sweeps" / "hinge" / "abcd1234"
    resolved = yaml.safe_load((run / "config.yaml").read_text())
    found = items(header(run).config.update)
    assert {key: found.pop(key) for key in chosen} == chosen
    assert {key: OmegaConf.select(OmegaConf.create(resolved), key) for key in chosen} == chosen
    assert {key: found[key] for key in resolved} == resolved
    ended = header(run)
    assert (ended.run_id, ended.sweep_id, ended.project) == ("abcd1234", "sweep123", "of-the-sweep")
    assert json.loads((run / "manifest.json").read_text())["wandb"]["id"] == "abcd1234"
    assert exit_codes(run) == [0]
    assert (tmp_path / "outputs" / "store" / "curate").is_dir()


# --- what is there already ----------------------------------------------------------------------


def test_a_directory_that_is_no_runs_is_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("of somebody else")
    with pytest.raises(InputError, match="which is no run's"), Tracker(tmp_path, "12345678"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


def test_a_refused_directory_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock does not outlive the refusal: whoever the directory belongs to may go on."""

    def lockf(*words: Any) -> None:
        (tmp_path / "config.yaml").write_text("of somebody else, who came in between")

    monkeypatch.setattr(fcntl, "lockf", lockf)
    tracker = Tracker(tmp_path, "12345678")
    with pytest.raises(InputError, match="which is no run's"), tracker:
        pass
    assert tracker.lock.closed
    assert not (tmp_path / "status.json").exists()


# --- what goes wrong ----------------------------------------------------------------------------


def test_a_failed_run_failed_there_too(tmp_path: Path) -> None:
    """An exit code that is not zero, and still one line in the place of a traceback."""
    words = ["dataset=file", "dataset.path=none.csv", "tracker=wandb_offline", "hydra.run.dir=run"]
    done = irl_exp(tmp_path, *words)
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    assert exit_codes(tmp_path / "run") == [1]


def test_a_wandb_that_cannot_be_had_costs_a_warning(tmp_path: Path) -> None:
    done = irl_exp(tmp_path, "tracker=wandb", "until=curate", "hydra.run.dir=run")
    assert (done.returncode, done.stderr) == (0, "")
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert status["status"] == "done"
    [warning] = status["warnings"]
    assert warning.startswith("wandb has this run in part or not at all: ")
    assert "comments/kept" in json.loads((tmp_path / "run" / "summary.json").read_text())


class Service(ThreadingHTTPServer):
    """What stands in wandb's place: it answers until so many runs have begun, then no more."""

    daemon_threads = True
    bucket: ClassVar[dict[str, Any]] = {
        "id": "1",
        "name": "run",
        "displayName": "run",
        "project": {"id": "1", "name": "irl_exp", "entity": {"id": "1", "name": "me"}},
    }

    def __init__(self, runs: int, status: int = 200) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.left, self.status, self.over = runs, status, Event()
        Thread(target=self.serve_forever, daemon=True).start()

    def __exit__(self, *error: object) -> None:
        self.over.set()
        self.shutdown()
        super().__exit__(*error)


class Answer(BaseHTTPRequestHandler):
    server: Service

    def do_POST(self) -> None:
        asked = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.server.left == 0:
            self.server.over.wait()
            return
        self.server.left -= b"mutation UpsertBucket" in asked
        said = {"data": {"upsertBucket": {"bucket": Service.bucket, "inserted": True}}}
        text = json.dumps(said if self.server.status == 200 else {"errors": [{"message": "who?"}]})
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *words: object) -> None:
        pass


@pytest.mark.parametrize(
    ("runs", "status", "reason"),
    [
        (0, 200, r"[Tt]imed out"),
        (1, 200, r"Timed out finishing run\.; to upload it: wandb sync .*run/wandb/run-"),
        (1, 401, r"who\?|401"),
    ],
    ids=["silent", "silent later", "refuses the key"],
)
def test_a_slow_or_unwilling_wandb_costs_a_warning(
    tmp_path: Path, runs: int, status: int, reason: str
) -> None:
    with Service(runs, status) as service:
        done = irl_exp(
            tmp_path,
            *("tracker=wandb", "until=curate", "hydra.run.dir=run"),
            WANDB_BASE_URL=f"http://127.0.0.1:{service.server_port}",
            WANDB_API_KEY="0" * 40,
            WANDB_INIT_TIMEOUT="1",
            WANDB_FINISH_TIMEOUT="1",
        )
    assert done.returncode == 0 and "Traceback" not in done.stderr
    ended = json.loads((tmp_path / "run" / "status.json").read_text())
    assert ended["status"] == "done"
    [warning] = ended["warnings"]
    assert re.search(reason, warning)
    assert "comments/kept" in json.loads((tmp_path / "run" / "summary.json").read_text())


def test_a_wandb_that_breaks_on_the_way_costs_a_warning(tmp_path: Path) -> None:
    """As if the service had gone while the run went on."""
    plain = {"tags": [], "extra_tags": [], "seeds": {}}
    settings = WandbTracker("wandb_offline", "offline", "irl_exp", None, False)
    with Tracker(tmp_path, "12345678") as tracker:
        tracker.start(plain, "", [])
        with Wandb(settings, tracker, plain, None, "study") as mirror:
            tracker.log("align", [{"global_step": 0, "loss": 1.0}])
            mirror.run.finish()
            tracker.log("align", [{"global_step": 1, "loss": 0.5}])
            tracker.summarize({"recovery/auc": 0.9})
    status = json.loads((tmp_path / "status.json").read_text())
    assert status["status"] == "done"
    assert len(status["warnings"]) == 1
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2
    assert json.loads((tmp_path / "summary.json").read_text()) == {"recovery/auc": 0.9}
