"""irl-store: real artifacts and manifests of runs; two processes, deaths, terminals, strangers."""

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from irl_exp import cli, store_cli
from irl_exp.store import Artifact, Store, fingerprint
from irl_exp.tracking import Tracker

COMMAND = [sys.executable, "-m", "irl_exp.store_cli"]
HEADER = ["state", "step", "fingerprint", "bytes", "created", "seconds", "runs"]


def writes(size: int) -> Callable[[Path], None]:
    def compute(path: Path) -> None:
        (path / "deep").mkdir()
        (path / "deep" / "weights").write_bytes(b"0" * size)

    return compute


def never(path: Path) -> None:
    raise AssertionError("computed again")


def run(store: Store, folder: Path, *steps: tuple[str, int]) -> list[Artifact]:
    """A run as cli.py does it, with the (step, size) of each artifact it uses."""
    artifacts = []
    with Tracker(folder, "00000000") as tracker, store.in_use():
        tracker.start({"seeds": {}}, "", [])
        store.register(folder)
        for step, size in steps:
            artifacts.append(store.fetch(step, {"size": size}, writes(size)))
            tracker.used(step, artifacts[-1].fingerprint)
    return artifacts


def interrupt(store: Store, step: str, size: int) -> Path:
    """The attempt that a computation leaves which fails."""

    def compute(path: Path) -> None:
        writes(size)(path)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.fetch(step, {"size": size}, compute)
    return store.root / step / f".tmp-{fingerprint({'size': size})}"


def manifest_size(artifact: Artifact) -> int:
    return (artifact.path / "manifest.json").stat().st_size


@dataclass
class Desk:
    """Two runs that share an artifact, a third that is gone, and what was interrupted."""

    store: Store
    first: Path
    second: Path
    shared: Artifact
    own: Artifact
    lonely: Artifact
    attempt: Path


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    store = Store(tmp_path / "store")
    first, second, gone = (tmp_path / "runs" / name for name in ("first", "second", "gone"))
    [shared] = run(store, first, ("curate", 1000))
    [_, own] = run(store, second, ("curate", 1000), ("pretrain", 20))
    [_, lonely] = run(store, gone, ("curate", 1000), ("pretrain", 3))
    attempt = interrupt(store, "align", 50_000)
    shutil.rmtree(gone)
    return Desk(store, first, second, shared, own, lonely, attempt)


@pytest.fixture
def irl_store(desk: Desk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Run the console script here, without a terminal: (exit status, output, error)."""

    def command(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["irl-store", *words, "--store", str(desk.store.root)])
        status, message = 0, ""
        try:
            store_cli.main()
        except SystemExit as end:  # what Python does with it: a text goes to standard error
            status, message = (end.code, "") if isinstance(end.code, int) else (1, f"{end.code}\n")
        out, err = capsys.readouterr()
        return status, out, err + message

    return command


def everything(folder: Path) -> dict[Path, tuple[int, int]]:
    """Every path below, with its inode and when it was changed."""
    return {p: (p.lstat().st_ino, p.lstat().st_mtime_ns) for p in sorted(folder.rglob("*"))}


# --- list ---------------------------------------------------------------------------------------


def test_a_program_reads_lines(desk: Desk, irl_store) -> None:
    before = everything(desk.store.root)
    status, out, err = irl_store("list")
    assert (status, err) == (0, "")
    header, *rows = [line.split("\t") for line in out.splitlines()]
    assert header == HEADER
    expected = [["attempt", "align", desk.attempt.name.removeprefix(".tmp-"), "50000", "", "", ""]]
    for artifact, size, runs in (
        (desk.shared, 1000, 2),
        *sorted(
            [(desk.own, 20, 1), (desk.lonely, 3, 0)], key=lambda artifact: artifact[0].fingerprint
        ),
    ):
        manifest = json.loads((artifact.path / "manifest.json").read_text())
        size += manifest_size(artifact)
        made = [manifest["created"], f"{artifact.seconds:.3f}"]
        row = ["artifact", artifact.step, artifact.fingerprint, str(size), *made, str(runs)]
        expected.append(row)
    assert rows == expected
    assert everything(desk.store.root) == before


def test_bytes_are_those_of_files_and_links_are_not_followed(
    desk: Desk, tmp_path: Path, irl_store
) -> None:
    (tmp_path / "large").mkdir()
    (tmp_path / "large" / "file").write_bytes(b"0" * 10**6)
    for name in ("file", ""):
        (desk.attempt / f"link{name}").symlink_to(tmp_path / "large" / name)
    links = len(str(tmp_path / "large" / "file")) + len(str(tmp_path / "large"))
    row = irl_store("list")[1].splitlines()[1].split("\t")
    assert (row[0], int(row[3])) == ("attempt", 50_000 + links)


def test_a_person_reads_a_table(desk: Desk) -> None:
    words = Terminal("list", desk.store.root).finish()[1]
    table = {line.split()[1]: line.split() for line in words.splitlines() if " s " in line}
    for artifact, runs in ((desk.shared, 2), (desk.own, 1), (desk.lonely, 0)):
        step, _, size, unit, age, _, seconds, used = table[artifact.fingerprint]
        held = (artifact.path / "deep" / "weights").stat().st_size + manifest_size(artifact)
        assert step == artifact.step
        expected = (f"{held / 1000:.1f}", "kB") if held >= 1000 else (str(held), "bytes")
        assert (size, unit) == expected
        assert 0 <= int(age) < 60
        assert (float(seconds), int(used)) == (pytest.approx(artifact.seconds, abs=0.05), runs)
    lonely = 3 + manifest_size(desk.lonely)
    total = 1023 + sum(map(manifest_size, (desk.shared, desk.own, desk.lonely)))
    *_, artifacts, attempts, runs_ = words.splitlines()
    assert artifacts == (
        f"3 artifacts ({total / 1000:.1f} kB); no run refers to 1 artifact ({lonely} bytes)"
    )
    assert attempts == "1 interrupted attempt (50.0 kB), unless a run is under way"
    assert runs_ == "3 runs registered, 1 of them gone"


@pytest.mark.parametrize(
    ("seconds", "age"), [(0, "0 s"), (59, "59 s"), (60, "1 min"), (7300, "2 h"), (90000, "1 d")]
)
def test_age(seconds: int, age: str) -> None:
    created = datetime.now(UTC) - timedelta(seconds=seconds + 0.5)
    assert store_cli._age(created.isoformat()) == age
    assert store_cli._age(None) == store_cli._age("2024-01-01T00:00:00") == "?"


def test_it_starts_without_the_heavy_libraries(desk: Desk) -> None:
    script = """
import sys
from irl_exp.store_cli import main
main()
assert not {"torch", "transformers", "hydra", "pandas", "numpy"} & sys.modules.keys()
"""
    command = [sys.executable, "-c", script, "list", "--store", desk.store.root]
    assert subprocess.run(command, capture_output=True, check=True).stdout.count(b"\n") == 5


def test_the_default_store_is_that_of_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["irl-store", "list"])
    for value in (None, "/elsewhere"):
        monkeypatch.delenv("IRL_EXP_STORE", raising=False)
        if value:
            monkeypatch.setenv("IRL_EXP_STORE", value)
        configured = OmegaConf.load(cli.CONF / "paths" / "default.yaml").store
        assert store_cli.parse().store == Path(configured)


@pytest.mark.parametrize("command", ["list", "gc"])
def test_a_missing_store_is_one_line(command: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [*COMMAND, command],
        env={**os.environ, "IRL_EXP_STORE": "nowhere"},
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    line = "irl-store: nowhere: no such folder; expected a store (--store or IRL_EXP_STORE)\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", line)
    assert list(tmp_path.iterdir()) == []


# --- gc -----------------------------------------------------------------------------------------


def test_what_no_run_refers_to_is_removed(desk: Desk, irl_store) -> None:
    old = desk.shared.path.with_name(".old-abc_1234")  # of a rerun that was killed
    shutil.copytree(desk.shared.path, old)
    damaged = desk.shared.path.with_name(f".damaged-{desk.shared.path.name}-abc_1234")
    shutil.copytree(desk.shared.path, damaged)
    runs = desk.store.root / ".runs"
    (runs / f".tmp-{'0' * 16}-1").write_bytes(b"/ha")
    kept = everything(desk.shared.path) | everything(desk.own.path)
    before = sum(path.lstat().st_size for path in desk.store.root.rglob("*") if path.is_file())

    status, out, err = irl_store("gc", "--yes")
    assert (status, err) == (0, "")
    for path in (desk.lonely.path, desk.attempt, old, damaged):
        assert str(path) in out
    assert f"{desk.second.with_name('gone')} (gone)" in out
    after = sum(path.lstat().st_size for path in desk.store.root.rglob("*") if path.is_file())
    assert out.splitlines()[-1] == (
        "removed 1 artifact, 1 interrupted attempt, 1 replaced artifact, 1 damaged artifact, "
        f"4 lock files, 2 registrations ({(before - after) / 1000:.1f} kB)"
    )

    assert everything(desk.shared.path) | everything(desk.own.path) == kept
    assert sorted(path.name for path in desk.store.root.iterdir()) == [
        *(".lock", ".runs", "align", "curate", "pretrain")
    ]
    assert len(list(runs.iterdir())) == 2
    for step, artifact in (("curate", desk.shared), ("pretrain", desk.own)):
        assert list((desk.store.root / step).iterdir()) == [artifact.path]
    assert list((desk.store.root / "align").iterdir()) == []
    assert irl_store("gc") == (0, "nothing to remove\n", "")
    # What is gone is computed again, what is kept is found.
    assert desk.store.fetch("curate", {"size": 1000}, never).hit
    assert not desk.store.fetch("pretrain", {"size": 3}, writes(3)).hit


def test_a_run_counts_while_its_manifest_is_there(desk: Desk, irl_store) -> None:
    (desk.second / "manifest.json").unlink()
    assert irl_store("gc", "--yes")[0] == 0
    assert desk.shared.path.exists()
    assert not desk.own.path.exists()
    shutil.rmtree(desk.first)
    assert irl_store("gc", "--yes")[0] == 0
    assert not desk.shared.path.exists()
    assert list((desk.store.root / ".runs").iterdir()) == []


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"steps": 3}', '{"steps": {"a": []}}', "ÿ"])
def test_nothing_is_removed_while_nobody_knows_what_a_run_refers_to(
    desk: Desk, text: str, irl_store
) -> None:
    (desk.first / "manifest.json").write_text(text, encoding="latin-1")
    before = everything(desk.store.root)
    status, out, err = irl_store("gc", "--yes")
    assert (status, out) == (1, "")
    assert err.startswith(f"irl-store: {desk.first / 'manifest.json'}: unreadable; expected ")
    assert err.count("\n") == 1
    assert everything(desk.store.root) == before
    assert irl_store("list")[0] == 0


def test_strangers_are_left_and_named(desk: Desk, tmp_path: Path, irl_store) -> None:
    """Also those that look like something of the store's."""
    outside = tmp_path / "outside"
    shutil.copytree(desk.lonely.path, outside / desk.lonely.fingerprint)
    root, key = desk.store.root, "0123456789abcdef"
    curate = root / "curate"
    folders = [root / "notes", root / ".git", curate / "mine", curate / key, curate / ".old-"]
    for folder in folders:
        folder.mkdir()
        (folder / "text").touch()
    files = [root / "notes.txt", curate / "a\x1b[2Jb", curate / f".tmp-{key}", root / ".runs" / key]
    for file in [*files, curate / f".lock-{key}"]:
        file.write_text("mine")
    links = [root / "linked", curate / "FINGERPRINT", curate / ".old-linked123"]
    for link in links:
        link.symlink_to(outside)
    (curate / f".lock-{key[::-1]}").symlink_to(curate / ".lock-gone")
    (curate / desk.lonely.fingerprint).symlink_to(outside / desk.lonely.fingerprint)
    strangers = [
        *(*folders, *files, *links, curate / f".lock-{key}", curate / f".lock-{key[::-1]}"),
        curate / desk.lonely.fingerprint,
    ]
    before = everything(outside)

    status, out, err = irl_store("gc", "--yes")
    assert (status, err) == (0, "")
    assert not desk.lonely.path.exists()
    named = [line for line in out.splitlines() if line.startswith("left, unknown to the store: ")]
    assert sorted(line.split(": ")[1] for line in named) == sorted(
        ascii(str(path)) if "\x1b" in path.name else str(path) for path in strangers
    )
    assert all(path.is_symlink() or path.exists() for path in strangers)
    assert all((folder / "text").exists() for folder in folders)
    assert everything(outside) == before


def test_links_in_what_is_removed_are_not_followed(desk: Desk, tmp_path: Path, irl_store) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("mine")
    (desk.attempt / "link").symlink_to(outside)
    (desk.lonely.path / "link").symlink_to(outside / "file")
    assert irl_store("gc", "--yes")[0] == 0
    assert not desk.attempt.exists()
    assert (outside / "file").read_text() == "mine"


def test_a_folder_that_is_no_store_is_refused(desk: Desk, irl_store) -> None:
    (desk.store.root / ".lock").unlink()
    before = everything(desk.store.root)
    line = f"irl-store: {desk.store.root}: no .lock in it; expected a store that a run has used\n"
    assert irl_store("gc", "--yes") == (1, "", line)
    assert everything(desk.store.root) == before


def test_without_a_terminal_nothing_is_removed(desk: Desk, irl_store) -> None:
    before = everything(desk.store.root)
    status, out, err = irl_store("gc")
    assert status == 1
    assert str(desk.lonely.path) in out
    assert err.startswith("irl-store: nothing removed: no terminal to ask on; --yes removes 1 art")
    assert err.count("\n") == 1
    assert everything(desk.store.root) == before


# --- a terminal ---------------------------------------------------------------------------------


class Terminal:
    """A process that stands on a terminal of its own."""

    def __init__(self, command: str, root: Path) -> None:
        self.master, terminal = pty.openpty()
        self.process = subprocess.Popen(
            [*COMMAND, command, "--store", root],
            stdin=terminal,
            stdout=terminal,
            stderr=subprocess.PIPE,
            env={**os.environ, "COLUMNS": "100", "TERM": "dumb"},
            # Who runs the tests in the background ignores SIGINT, and children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        os.close(terminal)
        self.said = ""

    def read_until(self, word: str) -> None:
        while word not in self.said:
            self.said += os.read(self.master, 4096).decode().replace("\r\n", "\n")

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def finish(self) -> tuple[int, str, str]:
        """Exit status, what stood on the terminal, standard error."""
        try:
            self.read_until("\0")
        except OSError:  # the other end is closed
            os.close(self.master)
        err = self.process.communicate()[1].decode()
        return self.process.returncode, self.said, err


@pytest.mark.parametrize("answer", ["n\n", "\n", "yesterday\n", "\x04"])
def test_only_yes_is_yes(desk: Desk, answer: str) -> None:
    before = everything(desk.store.root)
    terminal = Terminal("gc", desk.store.root)
    terminal.read_until("[y/N] ")
    assert "\nRemove 1 artifact, 1 interrupted attempt, 4 lock files, 1 registration (5" in (
        terminal.said
    )
    terminal.type(answer)
    status, _, err = terminal.finish()
    assert (status, err) == (1, "irl-store: nothing removed\n")
    assert everything(desk.store.root) == before


@pytest.mark.parametrize("answer", ["y\n", "Yes\n"])
def test_yes_is_yes(desk: Desk, answer: str) -> None:
    terminal = Terminal("gc", desk.store.root)
    terminal.read_until("[y/N] ")
    terminal.type(answer)
    status, said, err = terminal.finish()
    assert (status, err) == (0, "")
    assert "\nremoved 1 artifact, " in said
    assert not desk.lonely.path.exists()
    assert desk.own.path.exists()


def test_an_interrupt_removes_nothing(desk: Desk) -> None:
    before = everything(desk.store.root)
    terminal = Terminal("gc", desk.store.root)
    terminal.read_until("[y/N] ")
    terminal.process.send_signal(signal.SIGINT)
    status, _, err = terminal.finish()
    assert (status, err) == (1, "irl-store: interrupted\n")
    assert everything(desk.store.root) == before


@pytest.mark.parametrize("words", [["list"], ["gc", "--yes"]])
def test_a_reader_that_is_gone_is_no_traceback(desk: Desk, words: list[str]) -> None:
    before = everything(desk.store.root)
    reader, writer = os.pipe()
    os.close(reader)
    command = [*COMMAND, *words, "--store", desk.store.root]
    buffered = {**os.environ, "PYTHONUNBUFFERED": ""}
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, env=buffered)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")
    assert everything(desk.store.root) == before


# --- runs under way, and deaths -----------------------------------------------------------------

UNDER_WAY = """
import sys
from pathlib import Path
from irl_exp.store import Store

with Store(Path(sys.argv[1])).in_use():
    print("in use", flush=True)
    sys.stdin.readline()
"""


def test_gc_is_refused_until_a_run_is_over_or_killed(desk: Desk, irl_store) -> None:
    before = everything(desk.store.root)
    line = f"irl-store: store {desk.store.root}: a run is under way; try again when none is\n"
    with subprocess.Popen(
        [sys.executable, "-c", UNDER_WAY, desk.store.root],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == b"in use\n"
        assert irl_store("gc", "--yes") == (1, "", line)
        assert everything(desk.store.root) == before
        assert irl_store("list")[0] == 0
        process.kill()
        process.wait()
        assert irl_store("gc", "--yes")[0] == 0
    assert not desk.lonely.path.exists()


# For n = 1, 2, …: a copy of the store in which gc dies at the n-th thing that it does to a file,
# until it does no more than that. Prints n.
DEATHS = """
import os, shutil, sys
from irl_exp import store_cli

EVENTS = ("os.rename", "os.remove", "os.rmdir", "os.mkdir")
source, target = sys.argv[1:]
status, n = 9, 0
while status == 9:
    n += 1
    root = shutil.copytree(source, f"{target}/{n}")
    child = os.fork()
    if child == 0:
        left = n

        def die(event, arguments):
            global left
            if event in EVENTS:
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), 9)

        sys.argv = ["irl-store", "gc", "--yes", "--store", root]
        sys.stdout = open(os.devnull, "w")
        sys.addaudithook(die)
        store_cli.main()
        os._exit(0)
    status = os.waitpid(child, 0)[1]
assert status == 0, (n, status)
print(n)
"""


def test_gc_killed_at_any_moment_leaves_nothing_half_that_looks_finished(
    desk: Desk, tmp_path: Path
) -> None:
    # Finished, but not published when its process died: the next one would publish it.
    finished = desk.store.fetch("observe", {"size": 7}, writes(7))
    attempt = finished.path.rename(finished.path.with_name(f".tmp-{finished.fingerprint}"))
    # So many files, that the manifest is not the first that goes.
    for folder in (attempt, desk.lonely.path):
        for i in range(10):
            (folder / f"file {i}").touch()
    files = sorted(path.name for path in attempt.rglob("*"))

    (tmp_path / "deaths").mkdir()
    command = [sys.executable, "-c", DEATHS, desk.store.root, tmp_path / "deaths"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    deaths = int(done.stdout) - 1
    assert deaths > 2 * len(files)

    hits = 0
    for n in range(1, deaths + 1):
        store = Store(tmp_path / "deaths" / str(n))
        for step, size in (("observe", 7), ("pretrain", 3)):
            artifact = store.fetch(step, {"size": size}, writes(size))
            found = sorted(path.name for path in artifact.path.rglob("*"))
            # As it was, or computed anew.
            assert found in (files, ["deep", "manifest.json", "weights"])
            hits += found == files
        for step, size in (("curate", 1000), ("pretrain", 20)):
            assert store.fetch(step, {"size": size}, never).hit
    assert 0 < hits < 2 * deaths


# --- a study ------------------------------------------------------------------------------------


def test_a_real_run_and_its_artifact(tmp_path: Path) -> None:
    """Used by one run while that is there, then by none."""
    store = tmp_path / "store"
    small = ("+debug=smoke", "until=curate", "dataset.size=200", "trainer.threads=1")
    subprocess.run(
        [sys.executable, "-m", "irl_exp", *small, "hydra.run.dir=run", f"paths.store={store}"],
        check=True,
        capture_output=True,
        cwd=tmp_path,
    )

    def irl_store(*words: str) -> list[str]:
        command = [*COMMAND, *words, "--store", store]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        return done.stdout.splitlines()

    def rows() -> list[dict[str, str]]:
        return [dict(zip(HEADER, line.split("\t"), strict=True)) for line in irl_store("list")[1:]]

    [row] = rows()
    used = json.loads((tmp_path / "run" / "manifest.json").read_text())["steps"]
    assert used == {"curate": row["fingerprint"]}
    assert (row["state"], row["step"], row["runs"]) == ("artifact", "curate", "1")
    assert irl_store("gc", "--yes") == ["removed 1 lock file (0 bytes)"]
    assert rows() == [row]

    shutil.rmtree(tmp_path / "run")
    [after] = rows()
    assert after == {**row, "runs": "0"}
    removed = irl_store("gc", "--yes")[-1]
    assert removed.startswith("removed 1 artifact, 1 registration (")
    assert rows() == []
    assert list((store / "curate").iterdir()) == []


@pytest.mark.slow
def test_gc_takes_nothing_from_a_real_run(tmp_path: Path) -> None:
    store = tmp_path / "store"
    long = ("+debug=smoke", "until=curate", "dataset.size=3000000", "trainer.threads=1")
    process = subprocess.Popen(
        [sys.executable, "-m", "irl_exp", *long, "hydra.run.dir=run", f"paths.store={store}"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    with process:
        assert process.stdout
        while "curate " not in process.stdout.readline():
            assert process.poll() is None
        command = [*COMMAND, "gc", "--yes", "--store", store]
        refused = subprocess.run(command, capture_output=True, text=True)
        assert process.poll() is None
        assert refused.returncode == 1
        assert "a run is under way" in refused.stderr
        [attempt] = (store / "curate").glob(".tmp-*")
        process.kill()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1].startswith("removed 1 interrupted attempt, 1 lock file (")
    assert not attempt.exists()
    assert len(list((store / ".runs").iterdir())) == 1  # its directory is there, and its manifest
